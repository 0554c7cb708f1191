"""The model behind `structprune inspect`."""

from __future__ import annotations

import torch

from .data import load_data
from .errors import RecipeError
from .graph import DependencyGraph, trace
from .names import architectures, unknown
from .recipe import ModelSpec, read_recipe


def inspect_model(name: str, input_size: str | None = None, form: str = "module") -> DependencyGraph:
    """Traces a timm model by its name (untrained: groups do not depend on weights) or a recipe's model.

    `input_size` is C,H,W of one sample, `form` that of the slim network. Raises RecipeError for a name or size that
    can't be used.
    """
    from .models import build_model, resolve_model_data_config

    recipe = read_recipe(name) if name.endswith((".yaml", ".yml")) else None
    if recipe is None and name.partition(".")[0] not in architectures():
        raise RecipeError(unknown("model", name, architectures()))
    spec = recipe.model if recipe else ModelSpec(name=name)
    model = build_model(spec.model_copy(update={"pretrained": False, "weights": None}), seed=0)
    if input_size:
        size = _size(input_size)
    elif recipe:
        size = tuple(load_data(recipe.data, model, recipe.seed).example.shape[1:])
    else:
        size = resolve_model_data_config(model)["input_size"]
    return trace(model, torch.zeros(1, *size), form=form)


def _size(text: str) -> tuple[int, ...]:
    try:
        size = tuple(int(part) for part in text.split(","))
    except ValueError:
        size = ()
    if len(size) != 3 or min(size) < 1:
        raise RecipeError(f"--input-size {text}: give three whole numbers as C,H,W, for example 3,224,224")
    return size
