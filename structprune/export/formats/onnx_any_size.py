"""ONNX for images of any height and width.

slim.onnx is for the images' own size: a runtime folds what follows from it, and so it is the one that is timed.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from ...errors import ModelError
from ...ops import Inputs
from ..format import FORMATS, Finished, Format, Run
from ..onnx import export_onnx, opset_of

FILE = "slim.any_size.onnx"


def write(finished: Finished, folder: Path) -> None:
    """The file, in the opset of the other one. Raises ModelError where the network takes one size only."""
    if not any(isinstance(x, Tensor) and x.dim() == 4 for x in finished.inputs.flat()):
        raise ModelError("the network takes no images, which have four axes")
    options = {"opset": opset_of(finished.onnx), "metadata": finished.metadata}
    export_onnx(finished.slim, finished.inputs, folder / FILE, any_size=True, **options)  # type: ignore[arg-type]


def open_file(finished: Finished, folder: Path) -> Run:
    session = onnxruntime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Inputs) -> list[Tensor]:
        arguments = dict(zip(inputs.names(finished.slim), inputs.flat(), strict=True))
        results = session.run(None, {name: arguments[name].cpu().numpy() for name in names})
        return [torch.from_numpy(array) for array in results]

    return run


FORMATS.add(
    Format(
        "onnx_any_size",
        "ONNX for images of any size",
        {FILE: "the slim network for images of any size"},
        write,
        open_file,
        any_size=True,
    )
)
