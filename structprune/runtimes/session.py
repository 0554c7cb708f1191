"""ONNX files open in onnxruntime, with made-up inputs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ..errors import RecipeError
from .kernel_layers import LayerNames

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
_KERNEL = "_kernel_time"
CUDA = "CUDAExecutionProvider"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": CUDA}


@dataclass(frozen=True)
class Kernel:
    """One call of a kernel in one run: `name` is the node's, `layer` the path of the module that it is a part of, and
    the shapes are those of its tensors in the runtime."""

    name: str
    op: str
    layer: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    microseconds: float


class Session:
    """One model, one thread pool; `run` makes one forward pass on random inputs (seeded) at batch size `batch`.

    Denormals are flushed to zero. With `profile`, the folder to write in, `kernels` gives what each node of each run
    took. On `device` cuda inputs and outputs stay there. Raises RecipeError for what is no ONNX model.
    """

    def __init__(
        self, path: str | Path, batch: int = 1, threads: int = 1, profile: Path | None = None, device: str = "cpu"
    ) -> None:
        if not Path(path).is_file():
            raise RecipeError(f"{path} is no file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")  # or the idle session takes a core
        if profile is not None:
            self._layers = LayerNames(path)
            options.enable_profiling = True
            options.profile_file_prefix = str(profile / "kernels")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[_PROVIDERS[device]])
        except Exception as error:  # onnxruntime's exceptions share no base
            raise RecipeError(f"{path} can't be opened by onnxruntime: {str(error).splitlines()[0]}") from error
        self._feed = _made_up(self._session, batch, path)
        self._bound = self._binding(path) if device == "cuda" else None

    def run(self) -> Any:
        if self._bound is None:
            return self._session.run(None, self._feed)
        self._session.run_with_iobinding(self._bound)  # waits for the device
        return self._bound.get_outputs()

    def _binding(self, path: str | Path) -> Any:
        if CUDA not in self._session.get_providers():  # onnxruntime falls back on the CPU without an error
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


def made_up_inputs(path: str | Path, batch: int = 1) -> dict[str, np.ndarray]:
    """Random inputs (seeded) for an ONNX file, by name."""
    return Session(path, batch)._feed


def _made_up(session: onnxruntime.InferenceSession, batch: int, path: str | Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in entry.shape]
        if entry.type in _DTYPES:
            feed[entry.name] = rng.standard_normal(shape).astype(_DTYPES[entry.type])
        elif entry.type in _INTEGERS:
            feed[entry.name] = np.ones(shape, _INTEGERS[entry.type])
        else:
            raise RecipeError(f"{path}: input {entry.name} is a {entry.type}, for which no values can be made up")
    return feed


def _shapes(given: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for entry in given or () for shape in entry.values())


def runtime_name(device: str = "cpu") -> str:
    return f"onnxruntime {onnxruntime.__version__} {_PROVIDERS[device]}"
