"""What an engine is: one way to run networks, in a file of its own that declares what it can do.

An engine opens a network and gives back something whose `run()` makes one forward pass, waits for it and returns the
outputs as the engine has them. Those of the package are in `engines/`, where every module is imported. Nothing else
knows one by its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import nn

from ..ops import Inputs
from ..process_state import alone
from ..registry import Registry

if TYPE_CHECKING:
    from .runtime import Runtime

DTYPES = ("float32", "int8")
DEVICES = ("cpu", "cuda")


class Running(Protocol):
    """A network that is open in an engine."""

    def run(self) -> Any: ...


@dataclass(frozen=True)
class Kernel:
    """One call of a kernel in one run.

    Attributes:
        name: of the node in the network, the same in networks of other widths.
        op: what it computes, as ONNX calls it: Conv, MatMul, Gemm, ...
        layer: the path of the module that it is a part of (see `kernel_layers`).
        inputs: the shapes of the tensors that it reads, as the runtime has them; a convolution's weights are second.
        outputs: the shapes of those that it makes.
        microseconds: what it took.
    """

    name: str
    op: str
    layer: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    microseconds: float


class Watched(Running, Protocol):
    """A network whose kernels are timed while it runs."""

    def kernels(self) -> list[list[Kernel]]:
        """The kernels of each run so far, in the order in which they ran; ends the watching."""
        ...


@dataclass(frozen=True)
class Network:
    """A module and the arguments of one call: what engines open that take modules.

    `kept` is for an engine's own use: what it made of the network to open it again, by runtime.
    """

    model: nn.Module
    inputs: Inputs
    kept: dict[Runtime, Any] = field(default_factory=dict, repr=False, compare=False)


class Engine(ABC):
    """One way to run networks. A subclass declares what it can do, and `ENGINES.add` registers an instance.

    Attributes:
        name: as recipes call it.
        description: one line for lists.
        files: whether it opens ONNX files, and else a `Network`.
        dtypes: what it runs of float32 and int8.
        devices: where it runs, of cpu and cuda.
        kernels_on: the devices on which `watch` tells what each kernel took. Costs are then learned from its own.
        starts_threads: whether all threads that work for a network are started by the one that opens it, and so stay on
            the cores that this one is pinned to. One with a pool of its own is pinned where it runs on one thread.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    files: ClassVar[bool]
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    kernels_on: ClassVar[tuple[str, ...]] = ()
    starts_threads: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Raises ValueError for what no engine can declare."""
        super().__init_subclass__()
        for key, values, known in (
            ("dtypes", cls.dtypes, DTYPES),
            ("devices", cls.devices, DEVICES),
            ("kernels_on", cls.kernels_on, cls.devices),
        ):
            if unfit := [value for value in values if value not in known]:
                raise ValueError(f"{cls.__name__}.{key} has {unfit[0]!r}, which is not one of {', '.join(known)}")

    @abstractmethod
    def version(self, device: str) -> str:
        """Names the engine with the versions that its speed hangs on. What was measured is kept under it.

        Args:
            device: such as `cpu`

        Returns:
            The name.
        """

    @abstractmethod
    def open(self, source: Any, runtime: Runtime) -> Running:
        """Opens a network.

        Args:
            source: an ONNX file, or a `Network` where the engine takes modules
            runtime: with threads, batch, dtype and device, all of which the engine has declared

        Returns:
            What runs it.
        """

    def watch(self, source: Any, runtime: Runtime, folder: Path) -> Watched:
        """Opens a network with the times of its kernels. For devices in `kernels_on` only.

        Args:
            source: as for `open`
            runtime: as for `open`
            folder: for files meanwhile

        Returns:
            What runs it and tells the times.

        Raises:
            NotImplementedError: the engine tells no kernels' times
        """
        raise NotImplementedError(f"{self.name} does not tell what kernels take")

    def missing(self, device: str) -> str:
        """Tells what is not there to run it on a device, and what to do about it.

        Args:
            device: such as `cpu`

        Returns:
            A sentence; empty where all is there.
        """
        return ""

    def active(self, runtime: Runtime) -> AbstractContextManager[None]:
        """Sets what has to be set in this process while networks run: for modules, torch's threads and denormals.

        Args:
            runtime: as for `open`

        Returns:
            A context.
        """
        return nullcontext() if self.files else torch_settings(runtime.threads)


ENGINES: Registry[Engine] = Registry("engine", "structprune.runtimes.engines")


@contextmanager
def torch_settings(threads: int) -> Iterator[None]:
    """torch with so many threads and denormals flushed; both are put back at the end.

    One thread at a time is within: it would also time the other's work.
    """
    with alone():
        threads_before = torch.get_num_threads()
        flushed_before = (torch.tensor(1e-310, dtype=torch.float64) * 0.5).item() == 0
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)
            torch.set_flush_denormal(flushed_before)
