"""The runtime that a network is made for: onnxruntime on this CPU, with so many threads, a batch and a data type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import RecipeError
from ..export.int8 import Feed, quantize
from ..names import unknown
from .session import Session, made_up_inputs, runtime_name

DTYPES = ("float32", "int8")


@dataclass(frozen=True)
class Runtime:
    """`threads` is onnxruntime's intra-op count. With `dtype` int8, networks run as its static quantiser makes them."""

    threads: int = 1
    batch: int = 1
    dtype: Literal["float32", "int8"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise RecipeError(unknown("dtype", self.dtype, DTYPES))
        if self.threads < 1 or self.batch < 1:
            raise RecipeError(f"a runtime of threads={self.threads}, batch={self.batch}: give 1 or more")

    @property
    def name(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{runtime_name()}, {self.dtype}, {threads}, batch {self.batch}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def converted(self, path: Path, feeds: Sequence[Feed] | None = None, target: Path | None = None) -> Path:
        """The float32 ONNX file `path` as this runtime runs it: itself, or written to `target` (beside it).

        `feeds` are calibration inputs; without them ranges are those of random inputs, which is enough to time it.
        """
        if self.dtype == "float32":
            return path
        target = target or path.with_name(f"{path.stem}-int8.onnx")
        return quantize(path, target, feeds or [made_up_inputs(path, self.batch)])

    def open(self, path: str | Path, profile: Path | None = None) -> Session:
        return Session(path, self.batch, self.threads, profile)
