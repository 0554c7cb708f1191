"""onnxruntime on the CPU or on CUDA: ONNX files, whose kernels it can time one by one."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnxruntime

from ...errors import RecipeError
from ..engine import ENGINES, Engine, Kernel
from ..kernel_layers import LayerNames
from ..made_up_inputs import inputs_of, opened
from ..runtime import Runtime

_KERNEL = "_kernel_time"
_CUDA = "CUDAExecutionProvider"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": _CUDA}


class Session:
    """One model, one thread pool; `run` makes one forward pass on random inputs (seeded) at the runtime's batch size.

    Denormals are flushed to zero. With `profile`, the folder to write in, `kernels` gives what each node of each run
    took. On cuda inputs and outputs stay there. Raises RecipeError for what is not an ONNX model.
    """

    def __init__(self, path: str | Path, runtime: Runtime, profile: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = runtime.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")  # or the idle session takes a core
        if profile is not None:
            options.enable_profiling = True
            # its own folder: onnxruntime tells files apart by the time alone, and small networks are opened quickly
            options.profile_file_prefix = str(Path(tempfile.mkdtemp(dir=profile)) / "kernels")
        self._session = opened(path, options, _PROVIDERS[runtime.device])
        if profile is not None:
            self._layers = LayerNames(path)
        self._feed = inputs_of(self._session, runtime.batch, path)
        self._bound = self._binding(path) if runtime.device == "cuda" else None

    def run(self) -> Any:
        if self._bound is None:
            return self._session.run(None, self._feed)
        self._session.run_with_iobinding(self._bound)  # waits for the device
        return self._bound.get_outputs()

    def _binding(self, path: str | Path) -> Any:
        if _CUDA not in self._session.get_providers():  # onnxruntime falls back on the CPU without an error
            raise RecipeError(f"{path} can't be opened by onnxruntime on cuda: it finds no CUDA device")
        binding = self._session.io_binding()
        for name, value in self._feed.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        for entry in self._session.get_outputs():
            binding.bind_output(entry.name, "cuda")
        return binding

    def kernels(self) -> list[list[Kernel]]:
        """For each run so far its kernels, in the order in which they ran; ends the profiling.

        Nodes that the runtime added are named by their op and the node before them. Where several have one name, they
        are numbered from the second on.
        """
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        runs: list[list[Kernel]] = []
        current: list[Kernel] = []
        names: Counter[str] = Counter()
        before = "the input"
        for event in sorted(events, key=lambda e: e["ts"] + e["dur"]):
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
                args, name = event["args"], event["name"].removesuffix(_KERNEL)
                if name.startswith(args["op_name"]):  # the runtime's own node, numbered as it came to make it
                    name = f"{args['op_name']} after {before}"
                else:
                    before = name
                names[name] += 1
                if names[name] > 1:
                    name = f"{name}#{names[name]}"
                shapes = (_shapes(args.get("input_type_shape")), _shapes(args.get("output_type_shape")))
                layer = self._layers.of(name, args["op_name"])
                current.append(Kernel(name, args["op_name"], layer, *shapes, float(event["dur"])))
            elif event["name"] == "model_run":
                runs.append(current)
                current, names, before = [], Counter(), "the input"
        return runs


def _shapes(entries: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for entry in entries or () for shape in entry.values())


class ONNXRuntime(Engine):
    """ONNX files in onnxruntime. A session has a thread pool of its own, which the thread that opens it starts."""

    name = "onnxruntime"
    description = "ONNX files in onnxruntime"
    files = True
    dtypes = ("float32", "int8")
    devices = ("cpu", "cuda")
    kernels_on = ("cpu",)
    starts_threads = True

    def version(self, device: str) -> str:
        return f"onnxruntime {onnxruntime.__version__} {_PROVIDERS[device]}"

    def missing(self, device: str) -> str:
        if device == "cpu" or _CUDA in onnxruntime.get_available_providers():
            return ""
        return f"this onnxruntime has no {_CUDA}: install onnxruntime-gpu in its place, or set device to cpu"

    def open(self, source: Any, runtime: Runtime) -> Session:
        return Session(source, runtime)

    def watch(self, source: Any, runtime: Runtime, folder: Path) -> Session:
        return Session(source, runtime, folder)


ENGINES.add(ONNXRuntime())
