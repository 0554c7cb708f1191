"""The registry of model sources. A source turns a recipe or a command line into a spec, and a spec into a module.

A source is one file in `sources/`: its spec and its function, registered under its key in a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationInfo

from ..messages import shown, unknown
from ..registry import Registry
from ..strict_specs import Strict, checked_by

if TYPE_CHECKING:
    from torch import nn

Tell = Callable[[str], object]


class ModelSpec(Strict):
    """The model of a recipe. `name` is what messages and reports call it."""

    name: str

    @property
    def trained(self) -> bool:
        """Whether it comes with weights."""
        raise NotImplementedError

    def untrained(self) -> ModelSpec:
        """Leaves the weights out, if that is possible.

        Returns:
            The spec of the same network without its weights, else itself.
        """
        return self

    def files(self) -> list[Path]:
        """Lists the files whose content decides what is built, beside the spec.

        Returns:
            Their paths.
        """
        return []


Build = Callable[[Any, Tell], "nn.Module"]


@dataclass(frozen=True)
class ModelSource:
    """One way to name a model.

    Attributes:
        name: The key of `model` in a recipe that tells this source from the others.
        description: One line.
        spec: The class of its specs.
        build: From a spec, and a function that gets lines for the user, to a module. Seeded by `build_model`.
        reads: From what a command line says to the fields of a spec, or None if it is not of this source.
    """

    name: str
    description: str
    spec: type[ModelSpec]
    build: Build
    reads: Callable[[str], dict[str, Any] | None]


MODEL_SOURCES: Registry[ModelSource] = Registry("model source", "structprune.models.sources")


def model_source(
    name: str, description: str, spec: type[ModelSpec], reads: Callable[[str], dict[str, Any] | None]
) -> Callable[[Build], Build]:
    """Registers a function as what builds the models of a source.

    Args:
        name: the key of `model` in a recipe that tells this source from the others.
        description: a line for lists.
        spec: the class of its specs.
        reads: from what a command line says to the fields of a spec, or None if it is not of this source.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        ValueError: the name is taken.
    """

    def register(build: Build) -> Build:
        MODEL_SOURCES.add(ModelSource(name, description, spec, build, reads))
        return build

    return register


def source_of(spec: ModelSpec) -> ModelSource:
    """The source whose spec this is."""
    return next(source for source in MODEL_SOURCES.values() if type(spec) is source.spec)


def parse_model(data: Any, info: ValidationInfo) -> Any:
    """Parses `model` of a recipe into the spec of its source.

    Args:
        data: What the recipe holds, or a spec.
        info: Pydantic's, with the context of the recipe.

    Returns:
        The spec.

    Raises:
        ValueError: No source, or more than one, knows these keys; in one line.
    """
    if isinstance(data, BaseModel):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(f"give a mapping with one of {_keys()}, not {shown(data)}")
    sources = [source for key, source in MODEL_SOURCES.items() if key in data]
    if len(sources) > 1:
        raise ValueError(f"{' and '.join(s.name for s in sources)} each name a model: give one of them")
    if not sources:
        unfit = [key for key in data if key not in _options()]
        if unfit:
            raise ValueError(unknown("key", unfit[0], {*MODEL_SOURCES, *_options()}))
        raise ValueError(f"say which model by one of {_keys()}")
    return checked_by(sources[0].spec, data, info)


def _keys() -> str:
    return ", ".join(f"{key} ({source.description})" for key, source in MODEL_SOURCES.items())


def _options() -> set[str]:
    specs = [source.spec for source in MODEL_SOURCES.values()]
    return {str(key) for spec in specs for key, field in spec.model_fields.items() if not field.exclude}
