"""What a format is: a way to hand out the slim network beside its ONNX file, in a file of its own.

Each is one module of `formats/`, all of which are imported; nothing else knows one by its name. Enters a finished slim
network, leaves files in a folder, and a function that runs what the files hold, by which they are compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ..errors import ModelError, RecipeError
from ..models import ModelSpec
from ..ops import Inputs
from ..registry import Registry

Run = Callable[[Inputs], list[Tensor]]


@dataclass(frozen=True)
class Finished:
    """A slim network that is to be handed out.

    Attributes:
        slim: the network.
        inputs: what it runs on, a small batch.
        onnx: its ONNX file.
        weights: its safetensors file, under the names of `slim.state_dict()`.
        model: the recipe's `model`, where a recipe made it.
        metadata: texts for whoever deploys it, by name (see `metadata_of`).
    """

    slim: nn.Module
    inputs: Inputs
    onnx: Path
    weights: Path
    model: ModelSpec | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A format, by its name in a recipe's `export.formats`.

    Attributes:
        name: as recipes call it.
        description: one line for lists.
        files: what it writes, and what each file is, in a few words.
        write: writes the files into a folder. Raises ModelError, in one line, where it can't hold this network.
        open: from a network and the folder to a function that runs the files.
        missing: what is not installed, and how to get it; empty where all is there.
        any_size: whether the files take images of other sizes than the example's.
    """

    name: str
    description: str
    files: Mapping[str, str]
    write: Callable[[Finished, Path], None] = field(repr=False)
    open: Callable[[Finished, Path], Run] = field(repr=False)
    missing: Callable[[], str] = field(default=lambda: "", repr=False)
    any_size: bool = False


FORMATS: Registry[Format] = Registry("format", "structprune.export.formats")


def write_format(name: str, finished: Finished, folder: Path) -> str:
    """Writes a network in a format.

    Args:
        name: Of a registered format.
        finished: The network.
        folder: Gets the files; after a failure it has none of them.

    Returns:
        Why the format can't hold this network, in one line; empty where it was written.

    Raises:
        RecipeError: What the format needs is not installed.
    """
    record = FORMATS[name]
    if missing := record.missing():
        raise RecipeError(missing)
    try:
        record.write(finished, folder)
    except Exception as error:  # whatever torch, timm or OpenVINO raise for a network that they do not take
        for file in record.files:
            (folder / file).unlink(missing_ok=True)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        return first if isinstance(error, ModelError) else f"{type(error).__name__}: {first}"
    return ""
