"""What `structprune inspect`, `profile` and `sensitivity` look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .bench import Runtime
from .cost import CostModel, learn_cost, learn_steps
from .criteria import CRITERIA, scan_images, score, sensitivity
from .data import load_data
from .errors import RecipeError
from .graph import DependencyGraph, trace
from .names import architectures, unknown
from .progress import Reporter
from .recipe import ModelSpec, read_recipe
from .records import Sensitivity


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


def profile_model(
    name: str, input_size: str | None, asked: Mapping[str, Any], seconds: float, refresh: bool
) -> tuple[DependencyGraph, CostModel]:
    """The graph of a model, as `inspect_model` finds it, and what its widths cost on this machine.

    `asked` has `threads`, `batch` and `dtype`, None for what the recipe says, or else the runtime's defaults. Whatever
    engine a recipe names, the kernels are onnxruntime's, as no other tells.
    """
    given = read_recipe(name).runtime.model_dump(include=set(asked)) if name.endswith((".yaml", ".yml")) else {}
    runtime = Runtime(**{**given, **{key: value for key, value in asked.items() if value is not None}})
    reporter = Reporter()
    with reporter.console.status(f"{name}: building and tracing"):
        graph = inspect_model(name, input_size)
    with reporter.bar("finding the channel counts that this machine's runtime is fast with") as update:
        steps = learn_steps(runtime, refresh=refresh, progress=update, tell=reporter.stage)
    with reporter.bar("timing the network's kernels at several widths") as update:
        cost = learn_cost(graph, runtime, seconds=seconds, steps=steps, refresh=refresh, progress=update)
    return graph, cost


def scan(recipe: Path, overrides: Sequence[str] = ()) -> tuple[DependencyGraph, Sensitivity]:
    """The graph of a recipe's model as it is before any training, and what pruning each group alone costs.

    Raises RecipeError for a recipe without data.calibration, one that trains, and a layer-by-layer criterion.
    """
    from .models import build_model

    checked = read_recipe(recipe, overrides)
    name, flaw = checked.prune.criterion, ""
    if checked.data.calibration is None:
        flaw = "the scan needs calibration images: add data.calibration"
    elif checked.train is not None:
        flaw = "the recipe trains its network first: give trained weights by model.weights, and --set train=null"
    elif "widths" in CRITERIA[name].needs:
        flaw = f"{name} ranks for the widths of a plan: scan by another, such as --set prune.criterion=l1"
    if flaw:
        raise RecipeError(f"{recipe}: {flaw}")
    reporter = Reporter()
    model = build_model(checked.model, checked.seed)
    data = load_data(checked.data, model, checked.seed)
    form = "graph" if checked.prune.form == "graph" else "module"
    graph = trace(model, data.example[:1], form=form)
    scores = score(
        graph, name, data.calibration, labels=data.calibration_labels, combine=checked.prune.combine, seed=checked.seed
    )
    assert data.calibration is not None
    with reporter.bar("scanning") as update:
        return graph, sensitivity(graph, scores, scan_images(data.calibration), seed=checked.seed, progress=update)


def _size(text: str) -> tuple[int, ...]:
    try:
        size = tuple(int(part) for part in text.split(","))
    except ValueError:
        size = ()
    if len(size) != 3 or min(size) < 1:
        raise RecipeError(f"--input-size {text}: give three whole numbers as C,H,W, for example 3,224,224")
    return size
