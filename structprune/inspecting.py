"""The model behind `structprune inspect`."""

from __future__ import annotations

import torch

from .errors import RecipeError
from .graph import DependencyGraph, trace
from .recipe import ModelSpec, read_recipe


def inspect_model(name: str, input_size: str | None = None) -> DependencyGraph:
    """Traces a timm model by its name (untrained: groups do not depend on weights) or a recipe's model.

    `input_size` is C,H,W of one sample. Raises RecipeError for a name or size that can't be used.
    """
    from .models import architectures, build_model, resolve_model_data_config
    from .names import unknown

    if name.endswith((".yaml", ".yml")):
        spec = read_recipe(name).model
    elif name.partition(".")[0] in architectures():
        spec = ModelSpec(name=name)
    else:
        raise RecipeError(unknown("model", name, architectures()))
    spec = spec.model_copy(update={"pretrained": False, "weights": None})
    model = build_model(spec, seed=0)
    size = _size(input_size) if input_size else resolve_model_data_config(model)["input_size"]
    return trace(model, torch.zeros(1, *size))


def _size(text: str) -> tuple[int, ...]:
    try:
        size = tuple(int(part) for part in text.split(","))
    except ValueError:
        size = ()
    if len(size) != 3 or min(size) < 1:
        raise RecipeError(f"--input-size {text}: give three whole numbers as C,H,W, for example 3,224,224")
    return size
