"""The engines that can run a network, behind one small interface.

An engine opens a network and gives back something whose `run()` makes one forward pass, waits for it and returns the
outputs as the engine has them. onnxruntime and OpenVINO open ONNX files; torch and torch.compile take a module with
inputs (`Network`). All flush denormals to zero, and run in float32 what is float32 (on CUDA, both onnxruntime and torch
may still multiply in TF32, as is their default).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import onnxruntime
import torch
from torch import Tensor, nn

from ..errors import ModelError, RecipeError
from ..modules import replace_tensors, skeleton_copy, tensors
from ..ops import Inputs
from .session import CUDA, Session, made_up_inputs, runtime_name
from .signals import signal_stack_kept

if TYPE_CHECKING:
    from .runtime import Runtime


class Running(Protocol):
    """A network that is open in an engine."""

    def run(self) -> Any: ...


@dataclass(frozen=True)
class Network:
    """A module and the arguments of one call: what the torch engines open."""

    model: nn.Module
    inputs: Inputs
    compiled: dict[Runtime, _Eager] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Engine:
    """One way to run networks; `add_engine` registers it.

    Attributes:
        name: as recipes call it.
        files: whether it opens ONNX files, and else a `Network`.
        dtypes: what it runs of float32 and int8.
        devices: where it runs, of cpu and cuda.
        open: from a file or a `Network`, and a `Runtime` with threads, batch and device, to what has `run()`.
        version: its name with versions, by device. What was measured is kept under it.
        missing: says what is not there to run it on a device, and what to do about it, or nothing.
    """

    name: str
    files: bool
    dtypes: tuple[str, ...]
    devices: tuple[str, ...]
    open: Callable[[Any, Runtime], Running]
    version: Callable[[str], str]
    missing: Callable[[str], str]


class _Eager:
    """A copy of a module, in evaluation mode, with memory of its own."""

    def __init__(self, network: Network, runtime: Runtime) -> None:
        device = torch.device(runtime.device)
        model = skeleton_copy(network.model).eval()
        replace_tensors(model, {key: _own(tensor, device) for key, tensor in tensors(model).items()})
        self.model = model.to(device)
        self.call: Callable[..., Any] = self.model
        self._cuda = device.type == "cuda"
        self._inputs = network.inputs.map(lambda x: _batch(x, runtime.batch).to(device))

    def run(self) -> Any:
        with torch.inference_mode():
            made = self.call(*self._inputs.args, **self._inputs.kwargs)
        if self._cuda:
            torch.cuda.synchronize()
        return made


def _own(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy without denormals: `set_flush_denormal` is for the calling thread alone, and not for torch's pool."""
    copy = tensor.detach().to(device, copy=True)
    if copy.dtype in (torch.float32, torch.float64):
        copy[copy.abs() < torch.finfo(copy.dtype).tiny] = 0
    return copy


def _batch(x: Tensor, batch: int) -> Tensor:
    """Its samples (axis 0), again from the first on until there are `batch`."""
    return x[torch.arange(batch) % len(x)] if x.dim() else x


def _compiled(network: Network, runtime: Runtime) -> _Eager:
    """Compiled once for a `Network` and a runtime; opened again, it gets other memory for its weights."""
    eager = network.compiled.get(runtime)
    if eager is None:
        eager = _Eager(network, runtime)
        model = eager.model

        def forward(*args: Any, **kwargs: Any) -> Any:
            return model(*args, **kwargs)

        # Dynamo keeps what it has compiled by the code object, eight at most, and then runs eagerly without a word
        forward.__code__ = forward.__code__.replace()
        eager.call = torch.compile(forward, dynamic=False, fullgraph=True)
        try:
            eager.run()
        except Exception as error:  # whatever Dynamo, inductor or the C++ compiler raise
            lines = str(error).strip().splitlines() or [""]
            raise ModelError(
                f"{type(network.model).__name__} can't be compiled by torch.compile as one graph "
                f"({type(error).__name__}: {lines[0][:200]}): time it on torch instead"
            ) from error
        network.compiled[runtime] = eager
    for tensor in tensors(eager.model).values():
        tensor.data = tensor.data.clone()
    return eager


class _OpenVINO:
    """An ONNX file in OpenVINO on the CPU, at a fixed batch size, with random inputs (seeded)."""

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
                self._request = core.compile_model(model, "CPU", settings).create_infer_request()
                self._request.infer(feed)
        except Exception as error:  # it raises bare RuntimeErrors
            detail = (str(error).strip().splitlines() or [""])[-1]
            raise RecipeError(f"{path} can't be opened by openvino: {detail[:200]}") from error

    def run(self) -> Any:
        return list(self._request.infer(share_outputs=True).values())


def _onnxruntime_missing(device: str) -> str:
    if device == "cpu" or CUDA in onnxruntime.get_available_providers():
        return ""
    return f"this onnxruntime has no {CUDA}: install onnxruntime-gpu in its place, or set device to cpu"


def _torch_missing(device: str) -> str:
    if device == "cpu" or torch.cuda.is_available():
        return ""
    return "torch finds no CUDA device: install a CUDA build on a machine with a GPU, or set device to cpu"


def _openvino_missing(device: str) -> str:
    return "" if importlib.util.find_spec("openvino") else "it is not installed: pip install 'structprune[openvino]'"


def _compiled_version(device: str) -> str:
    """torch's default is not to freeze weights (TORCHINDUCTOR_FREEZING=1 does), and that makes another engine of it."""
    import torch._inductor.config as inductor

    return _torch_version("compiled with frozen weights" if inductor.freezing else "compiled", device)


def _torch_version(kind: str, device: str) -> str:
    where = f" on {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return f"torch {torch.__version__} {kind}{where}"


ENGINES: dict[str, Engine] = {}


def add_engine(engine: Engine) -> Engine:
    """Registers an engine and returns it: recipes and `Runtime` then know its name. Raises ValueError for one taken."""
    if engine.name in ENGINES:
        raise ValueError(f"an engine named {engine.name!r} is registered already")
    ENGINES[engine.name] = engine
    return engine


add_engine(
    Engine(
        "onnxruntime",
        True,
        ("float32", "int8"),
        ("cpu", "cuda"),
        lambda path, runtime: Session(path, runtime.batch, runtime.threads, device=runtime.device),
        runtime_name,
        _onnxruntime_missing,
    )
)
add_engine(
    Engine(
        "torch",
        False,
        ("float32",),
        ("cpu", "cuda"),
        _Eager,
        lambda device: _torch_version("eager", device),
        _torch_missing,
    )
)
add_engine(Engine("torch.compile", False, ("float32",), ("cpu", "cuda"), _compiled, _compiled_version, _torch_missing))
add_engine(
    Engine(
        "openvino",
        True,
        ("float32", "int8"),
        ("cpu",),
        _OpenVINO,
        lambda device: f"openvino {version('openvino')} CPU",
        _openvino_missing,
    )
)


@contextmanager
def torch_settings(threads: int) -> Iterator[None]:
    """torch with so many threads and denormals flushed; both are put back at the end."""
    before, flushed = torch.get_num_threads(), (torch.tensor(1e-310, dtype=torch.float64) * 0.5).item() == 0
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)
