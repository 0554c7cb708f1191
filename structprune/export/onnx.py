"""Export by torch's TorchScript-based exporter.

The newer one (dynamo=True) takes about five times as long on a ResNet and gains nothing for these networks; this
one is deprecated but still shipped, and `onnx.checker` and the gate check what it writes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..graph.capture import Inputs, outputs
from ..modules import evaluating, plain_transformers, skeleton_copy
from ..store import files

OPSET = 17


class _Flat(nn.Module):
    """Takes the flat tensors of `inputs` and returns a flat tuple of tensors, as ONNX wants it."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(given)
        flat = [next(remaining) if isinstance(x, Tensor) else x for x in self.inputs.flat()]
        return tuple(outputs(self.inputs.rebuild(flat).call(self.model)))


def export_onnx(model: nn.Module, example_inputs: Any, path: str | Path, *, opset: int = OPSET) -> Path:
    """Writes `model` in evaluation mode as ONNX to `path` and returns it.

    Axis 0 of every tensor input, and of every output whose axis 0 follows it, is dynamic and named `batch`.
    Inputs carry the names of forward's arguments; outputs are `output`, or `output_0`, `output_1`, ... The file
    appears only if it passes `onnx.checker`. Raises ModelError if the model can't be exported.
    """
    inputs = Inputs.of(example_inputs)
    names = [n for n, x in zip(inputs.names(model), inputs.flat(), strict=True) if isinstance(x, Tensor)]
    given = [x for x in inputs.flat() if isinstance(x, Tensor)]
    with evaluating(skeleton_copy(model)) as copy:
        made = outputs(inputs.call(copy))
    with evaluating(skeleton_copy(model)) as copy:
        batch = given[0].shape[0] if given and given[0].dim() else None
        stem = "output" if "output" not in names else "result"  # ONNX has one space of names
        result_names = [stem] if len(made) == 1 else [f"{stem}_{i}" for i in range(len(made))]
        dynamic = {n: {0: "batch"} for n, x in zip(names, given, strict=True) if x.dim()}
        dynamic |= {n: {0: "batch"} for n, x in zip(result_names, made, strict=True) if x.dim() and x.shape[0] == batch}

        def write(aside: Path) -> None:
            quiet = contextlib.redirect_stdout(io.StringIO())  # it prints the whole graph when it fails
            with warnings.catch_warnings(), quiet, plain_transformers():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    _Flat(copy, inputs).eval(),
                    tuple(given),
                    str(aside),
                    dynamo=False,
                    opset_version=opset,
                    input_names=names,
                    output_names=result_names,
                    dynamic_axes=dynamic,
                )
            onnx.checker.check_model(str(aside), full_check=True)

        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            return files.write(Path(path), write)
        except Exception as error:  # whatever the exporter or the checker raises
            detail = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(
                f"{type(model).__name__} can't be exported to ONNX: {type(error).__name__}: {detail}"
            ) from error
