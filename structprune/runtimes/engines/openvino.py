"""OpenVINO on the CPU: ONNX files, at a fixed batch size."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...errors import RecipeError
from ...extras import lacking
from ...signal_stack import signal_stack_kept
from ..engine import ENGINES, Engine, Running
from ..made_up_inputs import made_up_inputs
from ..runtime import Runtime


class _Request:
    """An ONNX file in OpenVINO, with random inputs (seeded)."""

    def __init__(self, path: str | Path, runtime: Runtime) -> None:
        import openvino

        feed = made_up_inputs(path, runtime.batch)
        settings = {
            "INFERENCE_NUM_THREADS": runtime.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # or it takes bfloat16 where the processor has AMX
            "CPU_DENORMALS_OPTIMIZATION": True,
            "ENABLE_CPU_PINNING": False,  # or what else runs on the first cores decides
        }
        try:
            core = openvino.Core()
            model = core.read_model(str(path))
            model.reshape({name: list(value.shape) for name, value in feed.items()})
            with signal_stack_kept():  # it sets one of its own
                self.request = core.compile_model(model, "CPU", settings).create_infer_request()
                self.request.infer(feed)
        except Exception as error:  # it raises bare RuntimeErrors
            detail = (str(error).strip().splitlines() or [""])[-1]
            raise RecipeError(f"{path} can't be opened by openvino: {detail[:200]}") from error

    def run(self) -> Any:
        return list(self.request.infer(share_outputs=True).values())


class OpenVINO(Engine):
    """ONNX files in OpenVINO."""

    name = "openvino"
    description = "ONNX files in OpenVINO"
    files = True
    dtypes = ("float32", "int8")

    def version(self, device: str) -> str:
        return f"openvino {version('openvino')} CPU"

    def missing(self, device: str) -> str:
        return lacking("it", "openvino")

    def open(self, source: Any, runtime: Runtime) -> Running:
        return _Request(source, runtime)


ENGINES.add(OpenVINO())
