"""`source: net.py:Net` and `source: package.module:function`: a class or a function of anyone's, and its arguments."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationInfo, field_validator

from ... import user_code
from ...errors import ModelError, RecipeError
from ...messages import shown
from ...strict_specs import beside_recipe
from ..registry import ModelSpec, Tell, model_source

if TYPE_CHECKING:
    from torch import nn


_PACKAGE = "package:"  # as `weights.PACKAGE`, which imports torch


class CodeSpec(ModelSpec):
    """A class, or a function that gives a module. `weights` is a .safetensors or .pth file of its state_dict.

    An argument that is itself a mapping of `source` and `kwargs` is made first: a configuration, an activation.
    """

    name: str = Field(default="", exclude=True)  # set from the source
    source: str = Field(description="`net.py:Net` or `package.module:function`")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="its arguments")
    weights: str | None = Field(
        default=None, description="a file of its state_dict, or `package:NAME/FILE` of an installed package"
    )

    @field_validator("source")
    @classmethod
    def _there(cls, source: str, info: ValidationInfo) -> str:
        place, colon, name = source.rpartition(":")
        if not colon and source.endswith(".py"):
            source = beside_recipe(source, info)
        elif user_code.is_file_name(place):
            source = f"{beside_recipe(place, info)}:{name}"
        user_code.check(source)
        return source

    @field_validator("weights")
    @classmethod
    def _beside(cls, weights: str | None, info: ValidationInfo) -> str | None:
        return weights if weights is None or weights.startswith(_PACKAGE) else beside_recipe(weights, info)

    def model_post_init(self, _: Any) -> None:
        object.__setattr__(self, "name", self.source)

    @property
    def trained(self) -> bool:
        return self.weights is not None

    def untrained(self) -> CodeSpec:
        return self.model_copy(update={"weights": None})

    def files(self) -> list[Path]:
        own = [Path(self.weights)] if self.weights and not self.weights.startswith(_PACKAGE) else []
        return [*user_code.files_of(self.source), *own]


def _reads(text: str) -> dict[str, Any] | None:
    scheme = text.partition(":")[0]
    if scheme in ("hf-hub", "hf_hub", "local-dir"):
        return None
    return {"source": text} if ":" in text or text.endswith(".py") else None


@model_source("source", "a class or function: net.py:Net or package.module:function", CodeSpec, _reads)
def build(spec: CodeSpec, tell: Tell) -> nn.Module:
    """Calls what the source names. Raises RecipeError and ModelError, in one line."""
    from torch import nn

    from ..weights import load_weights

    with _importable(spec.source):
        model = _call(spec.source, spec.kwargs, tell, 0)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec.source} makes a {type(model).__name__}, not an nn.Module: name a class or a function")
    if spec.weights:
        load_weights(model, spec.weights, spec.source, tell)
    return model


@contextlib.contextmanager
def _importable(source: str) -> Iterator[None]:
    """While it is built, a network may import more of what lies beside its file."""
    place, _ = user_code.split(source)
    with user_code.importable(Path(place)) if user_code.is_file_name(place) else contextlib.nullcontext():
        yield


def _call(source: str, kwargs: Mapping[str, Any], tell: Tell, depth: int) -> Any:
    from torch import nn

    if depth > 8:
        raise RecipeError("model.kwargs: sources inside sources, more than eight deep")
    target = user_code.find(source, tell)
    if isinstance(target, nn.Module):
        if kwargs:
            raise ModelError(f"{source} is a module already, which takes no arguments: leave kwargs out")
        return copy.deepcopy(target)  # or what one run trains, the next would start from
    if not callable(target):
        raise ModelError(f"{source} is {shown(target)}, which can't be called: name a class or a function")
    arguments = {key: _made(value, tell, depth) for key, value in kwargs.items()}
    try:
        return target(**arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's code raises
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"{source} can't be built with {shown(dict(kwargs), 200)}: {type(error).__name__}: {lines[0]}"
        ) from error


def _made(value: Any, tell: Tell, depth: int) -> Any:
    """The value of an argument: itself, or what its `source` makes."""
    if isinstance(value, Mapping) and "source" in value and value.keys() <= {"source", "kwargs"}:
        return _call(str(value["source"]), value.get("kwargs") or {}, tell, depth + 1)
    if isinstance(value, Mapping):
        return {key: _made(inner, tell, depth) for key, inner in value.items()}
    if isinstance(value, list):
        return [_made(inner, tell, depth) for inner in value]
    return value
