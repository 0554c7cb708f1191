"""What networks can be timed in, beside onnxruntime: PyTorch as it is or compiled, and OpenVINO, all on this CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RecipeError
from ..names import unknown
from .session import Session, made_up_inputs

ENGINES = ("onnxruntime", "torch", "torch.compile", "openvino")
OF_FILES = ("onnxruntime", "openvino")  # the others run modules
Run = Callable[[], Any]


@dataclass(frozen=True)
class Module:
    """A network and a batch of its inputs, as torch's engines time them."""

    model: nn.Module
    inputs: Sequence[torch.Tensor]


def check_engine(engine: str) -> None:
    """Raises RecipeError for an engine that is not known or not installed."""
    if engine not in ENGINES:
        raise RecipeError(unknown("engine", engine, ENGINES))
    if engine == "openvino" and find_spec("openvino") is None:
        raise RecipeError("the engine openvino is not installed: pip install 'structprune[openvino]'")


def opener(engine: str, batch: int, threads: int) -> Callable[[str | Path | Module], Run]:
    """A function from an ONNX file (onnxruntime, OpenVINO) or a `Module` (torch) to one that makes a forward pass.

    A module is compiled once, however often it is opened. `batch` is for the axes that a file leaves open.
    """
    check_engine(engine)
    compiled: dict[int, Run] = {}
    if engine == "torch.compile":
        torch._dynamo.reset()  # it compiles one class of modules only so often

    def open_(subject: str | Path | Module) -> Run:
        if engine in OF_FILES:
            if isinstance(subject, Module):
                raise RecipeError(f"{engine} times ONNX files, and got a module: export it first")
            return (
                Session(subject, batch, threads).run if engine == "onnxruntime" else _openvino(subject, batch, threads)
            )
        if not isinstance(subject, Module):
            raise RecipeError(f"{engine} times modules, and {subject} is an ONNX file: use onnxruntime or openvino")
        if id(subject) not in compiled:
            compiled[id(subject)] = _torch(subject, engine == "torch.compile")
        return compiled[id(subject)]

    return open_


@contextmanager
def settings(engine: str, threads: int) -> Iterator[None]:
    """torch's engines take the number of threads, and that denormals are flushed, from the process."""
    before = torch.get_num_threads()
    if engine not in OF_FILES:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if engine not in OF_FILES:
            torch.set_num_threads(before)
            torch.set_flush_denormal(False)


def engine_name(engine: str) -> str:
    """With its version, as reports give it."""
    try:
        return f"{engine} {version(engine.partition('.')[0])} CPU"
    except PackageNotFoundError:
        return f"{engine} CPU"


def _torch(subject: Module, compiled: bool) -> Run:
    model: Any = copy.deepcopy(subject.model).eval()
    if compiled:
        model = torch.compile(model)

    def run() -> Any:
        with torch.inference_mode():
            return model(*subject.inputs)

    run()  # compiles
    return run


def _openvino(path: str | Path, batch: int, threads: int) -> Run:
    import openvino

    feed = made_up_inputs(path, batch)
    core = openvino.Core()
    network = core.read_model(str(path))
    network.reshape({name: values.shape for name, values in feed.items()})
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": "f32",  # or it may round to bfloat16
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def run() -> Any:
        return list(request.infer(feed, share_inputs=True).values())

    return run
