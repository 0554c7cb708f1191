"""A program of `torch.export`: PyTorch runs it without the code of the network."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ...modules import evaluating, plain_transformers, skeleton_copy
from ...ops import Inputs, outputs
from ...process_state import silent_logger, silent_warnings
from ..fixed_sizes import pinned
from ..format import FORMATS, Finished, Format, Run

FILE, METADATA = "slim.pt2", "structprune.json"


def write(finished: Finished, folder: Path) -> None:
    """The program, for any batch where the network allows it, with the metadata beside it in the file."""
    inputs = finished.inputs
    sizes = {x.shape[0] for x in inputs.flat() if isinstance(x, Tensor) and x.dim()}
    if sizes == {1}:  # which torch.export takes for fixed
        inputs = inputs.map(lambda x: torch.cat([x, x]) if x.dim() else x)
    model = pinned(finished.slim, inputs)
    with evaluating(skeleton_copy(model)) as copy, plain_transformers(), silent_warnings(), silent_logger("torch"):
        try:
            program = torch.export.export(copy, inputs.args, inputs.kwargs, dynamic_shapes=_any_batch(inputs))
        except Exception:  # a network that fixes the batch, in one of the many ways in which torch says so
            program = torch.export.export(copy, inputs.args, inputs.kwargs)
        program.example_inputs = None  # they are the user's images
        extra = {METADATA: json.dumps(dict(finished.metadata), ensure_ascii=False)}
        torch.export.save(program, folder / FILE, extra_files=extra)


def _any_batch(inputs: Inputs) -> tuple[object, ...]:
    """`dynamic_shapes` with axis 0 of each tensor open, and one size for all."""
    batch = torch.export.Dim("batch")
    shapes = inputs.map(lambda x: {0: batch} if x.dim() else None)
    return (*shapes.args, *shapes.kwargs.values())


def open_program(finished: Finished, folder: Path) -> Run:
    with silent_warnings():
        module = torch.export.load(folder / FILE).module()

    def run(inputs: Inputs) -> list[Tensor]:
        with torch.no_grad():
            return outputs(inputs.call(module))

    return run


FORMATS.add(
    Format("pt2", "a program of torch.export", {FILE: "the slim network for torch.export"}, write, open_program)
)
