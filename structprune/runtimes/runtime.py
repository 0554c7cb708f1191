"""The runtime that a network is made for: an engine on a device, with so many threads, a batch and a data type."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ..errors import RecipeError
from ..export import export_onnx
from ..export.int8 import Feed, quantize
from ..messages import unknown
from ..ops import Inputs
from .engine import DEVICES, DTYPES, ENGINES, Network, Running, Watched
from .made_up_inputs import made_up_inputs


@dataclass(frozen=True)
class Runtime:
    """`threads` are those inside an op. With `dtype` int8, networks run as onnxruntime's static quantiser makes them.

    Raises RecipeError for what the engine does not do, and where it or the device is not there.
    """

    threads: int = 1
    batch: int = 1
    dtype: Literal["float32", "int8"] = "float32"
    engine: str = "onnxruntime"
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("engine", self.engine, ENGINES),
            ("device", self.device, DEVICES),
            ("dtype", self.dtype, DTYPES),
        ):
            if name not in known:
                raise RecipeError(unknown(kind, name, known))
        if self.threads < 1 or self.batch < 1:
            raise RecipeError(f"a runtime of threads={self.threads}, batch={self.batch}: give 1 or more")
        engine = ENGINES[self.engine]
        if self.device not in engine.devices:
            raise RecipeError(f"{self.engine} runs on {' or '.join(engine.devices)} here, not on {self.device}")
        if self.dtype not in engine.dtypes:
            able = " or ".join(name for name, other in ENGINES.items() if self.dtype in other.dtypes)
            raise RecipeError(f"{self.engine} runs networks in float32, not in {self.dtype}: take {able} for that")
        if missing := engine.missing(self.device):
            raise RecipeError(f"engine {self.engine} on {self.device} was asked for, and {missing}")

    @property
    def files(self) -> bool:
        """Whether it opens ONNX files, and else modules."""
        return ENGINES[self.engine].files

    @property
    def tells_kernels(self) -> bool:
        """Whether it tells what each kernel takes."""
        return self.device in ENGINES[self.engine].kernels_on

    @property
    def can_be_pinned(self) -> bool:
        """Whether all threads that work stay on the cores that the one which opens a network is pinned to."""
        return self.device == "cpu" and (self.threads == 1 or ENGINES[self.engine].starts_threads)

    @property
    def version(self) -> str:
        """The engine with its version, and what it runs on."""
        return ENGINES[self.engine].version(self.device)

    @property
    def name(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.version}, {self.dtype}, {threads}, batch {self.batch}"

    def to_dict(self) -> dict[str, Any]:
        """Gives plain data.

        Returns:
            The fields by name.
        """
        return asdict(self)

    def prepare(self, model: nn.Module, example_inputs: Any, path: Path) -> Path | Network:
        """Makes of a module what `open` takes.

        Args:
            model: the network
            example_inputs: as the model is called
            path: of the ONNX file (int8: beside it)

        Returns:
            An ONNX file, or the module with its inputs where the engine takes modules.
        """
        if not self.files:
            return Network(model, Inputs.of(example_inputs))
        return self.converted(export_onnx(model, example_inputs, path))

    def converted(self, path: Path, feeds: Sequence[Feed] | None = None, target: Path | None = None) -> Path:
        """Converts a float32 ONNX file to this runtime's dtype.

        Args:
            path: of the float32 file
            feeds: calibration inputs; without them ranges are those of random inputs, which is enough to time it
            target: where to write; beside `path` by default

        Returns:
            The file to run: `path` itself, or `target`.
        """
        if self.dtype == "float32":
            return path
        target = target or path.with_name(f"{path.stem}-int8.onnx")
        return quantize(path, target, feeds or [made_up_inputs(path, self.batch)])

    def open(self, source: str | Path | Network) -> Running:
        """Opens a network at this batch size; `run` it inside `active`. Files run as they are, in either dtype.

        Args:
            source: an ONNX file, or a `Network` where the engine takes modules

        Returns:
            What runs it.
        """
        self._check_source(source)
        with self.active():
            return ENGINES[self.engine].open(source, self)

    def watch(self, source: str | Path | Network, folder: Path) -> Watched:
        """Opens a network with the times of its kernels, where it `tells_kernels`.

        Args:
            source: as for `open`
            folder: for files meanwhile

        Returns:
            What runs it and tells the times.
        """
        self._check_source(source)
        with self.active():
            return ENGINES[self.engine].watch(source, self, folder)

    def _check_source(self, source: str | Path | Network) -> None:
        """Raises RecipeError for a module where files are run, and for a file where modules are."""
        if self.files and isinstance(source, Network):
            raise RecipeError(f"{self.engine} runs ONNX files: write {type(source.model).__name__} by export_onnx")
        if not self.files and not isinstance(source, Network):
            raise RecipeError(
                f"{self.engine} runs modules, and {source} is an ONNX file: time the networks of a recipe on it by "
                "bench.also, or give benchmark modules and example_inputs"
            )

    def active(self) -> AbstractContextManager[None]:
        """Sets what the engine needs in this process while it runs.

        Returns:
            A context.
        """
        return ENGINES[self.engine].active(self)
