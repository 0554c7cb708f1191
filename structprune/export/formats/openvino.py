"""OpenVINO's IR, made of the ONNX file, with weights in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError
from ...extras import lacking
from ...ops import Inputs
from ...signal_stack import signal_stack_kept
from ..format import FORMATS, Finished, Format, Run

FILES = {"slim.xml": "the slim network for OpenVINO", "slim.bin": "its weights for OpenVINO"}
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # or it takes bfloat16 where the processor has AMX


def write(finished: Finished, folder: Path) -> None:
    """slim.xml and slim.bin, with the metadata in the model's `rt_info`."""
    import openvino

    try:
        model = openvino.Core().read_model(str(finished.onnx))
    except Exception as error:  # it raises bare RuntimeErrors of many lines, the last of which says the most
        detail = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelError(f"OpenVINO can't convert slim.onnx: {detail.lstrip('- ')[:200]}") from error
    for name, text in finished.metadata.items():
        model.set_rt_info(text, ["structprune", name.removeprefix("structprune.")])
    openvino.save_model(model, str(folder / "slim.xml"), compress_to_fp16=False)


def open_model(finished: Finished, folder: Path) -> Run:
    import openvino

    with signal_stack_kept():  # it sets one of its own
        model = openvino.Core().compile_model(str(folder / "slim.xml"), "CPU", _EXACT)
    names = [entry.get_any_name() for entry in model.inputs]

    def run(inputs: Inputs) -> list[Tensor]:
        arguments: dict[str, Any] = dict(zip(inputs.names(finished.slim), inputs.flat(), strict=True))
        results = model({name: arguments[name].cpu().numpy() for name in names})
        return [torch.from_numpy(results[output].copy()) for output in model.outputs]

    return run


FORMATS.add(
    Format(
        "openvino", "OpenVINO's IR", FILES, write, open_model, missing=lambda: lacking("format openvino", "openvino")
    )
)
