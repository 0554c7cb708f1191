"""From a spec to a module: the one entry, whatever the source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import ModelError, RecipeError
from ..messages import shown
from ..modules import tensors
from ..strict_specs import mistakes
from ..user_code import to_stderr
from .registry import MODEL_SOURCES, ModelSpec, Tell, source_of


def build_model(spec: ModelSpec, seed: int, tell: Tell = to_stderr) -> nn.Module:
    """Builds the model that a recipe names, in evaluation mode, initialised under `seed`, on the CPU.

    Args:
        spec: As `parse_model` or `spec_from_text` returns it.
        seed: Torch's seed, set before anything is built.
        tell: Gets what the user should know, a line each: which file is run, what was taken of a checkpoint.

    Returns:
        The module. All its parameters and buffers are finite.

    Raises:
        RecipeError: Files, names or weights are missing or do not fit.
        ModelError: The model can't be built, is not a module, or holds NaN.
    """
    torch.manual_seed(seed)
    model = source_of(spec).build(spec, tell)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec.name} makes a {type(model).__name__}, not an nn.Module")
    check_finite(model)
    return model.eval()


def check_finite(model: nn.Module) -> None:
    """Checks that a model can be ranked by its weights.

    Args:
        model: The model.

    Raises:
        ModelError: A parameter or buffer holds NaN or infinity, or has no size yet.
    """
    for key, tensor in tensors(model).items():
        if is_lazy(tensor):
            raise ModelError(
                f"{key} has no size until its lazy layer has run: run the model once on an example where it is made"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{key} holds NaN or infinite values, so nothing can be ranked: load sound weights")


def spec_from_text(
    text: str, kwargs: Mapping[str, Any] | str | None = None, code: str | None = None, weights: str | None = None
) -> ModelSpec:
    """The model that a command line names: a timm name, `net.py:Net`, `package.module:function`, or a run's folder.

    Args:
        text: The name.
        kwargs: Arguments for it, also as a JSON object; for sources that take any.
        code: The file that defines the classes of a run's network, where they are the user's own.
        weights: A file of weights for it.

    Returns:
        Its spec.

    Raises:
        RecipeError: No source knows the name, or takes these arguments.
    """
    fields = next((f for f in (source.reads(text) for source in MODEL_SOURCES.values()) if f is not None), None)
    if fields is None:
        if "/" in text:
            raise RecipeError(f"there is no folder {shown(text)}: give the folder of a finished run, or another model")
        fields = {"name": text}
    if kwargs:
        fields["kwargs"] = _arguments(kwargs)
    fields |= {key: value for key, value in (("code", code), ("weights", weights)) if value}
    spec = next(source.spec for key, source in MODEL_SOURCES.items() if key in fields)
    for option, value in (("kwargs", kwargs), ("code", code), ("weights", weights)):
        if value and option not in spec.model_fields:
            raise RecipeError(f"{text} takes no --{option}")
    try:
        return TypeAdapter(spec).validate_python(fields)
    except ValidationError as error:
        first, _ = next(mistakes(error))
        raise RecipeError(first["msg"].removeprefix("Value error, ")) from error


def _arguments(kwargs: Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(kwargs, str):
        try:
            kwargs = json.loads(kwargs)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"--kwargs {shown(kwargs)} is not JSON: {error}; give e.g. '{{\"depth\": 3}}'") from error
    if not isinstance(kwargs, Mapping):
        raise RecipeError(f"--kwargs {shown(kwargs)} is not a JSON object: give e.g. '{{\"depth\": 3}}'")
    return dict(kwargs)
