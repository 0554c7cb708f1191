"""The work of `structprune inspect`, `profile` and `sensitivity`: a graph, its costs, its sensitivity."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from .cost import CostModel, learn_cost, learn_multiples
from .criteria import criterion_of
from .data import load_data
from .errors import RecipeError
from .graph import DependencyGraph, trace
from .models import build_model, example_inputs, inputs_of_onnx, spec_from_text
from .plan import ALLOCATIONS
from .progress import Reporter
from .recipe import Recipe, read_recipe
from .records import Sensitivity
from .run import runner_of
from .runtimes import Runtime
from .shipped_recipes import shipped
from .store.artefacts import Artefacts
from .tasks.building import make_task
from .timm_names import architectures
from .typing import Form
from .user_code import Tell


def inspect_model(
    name: str,
    input_size: str | None = None,
    form: Form = "module",
    kwargs: str | None = None,
    code: str | None = None,
    tell: Tell | None = None,
) -> DependencyGraph:
    """Traces a model that a command line names, or a recipe's, untrained: groups do not depend on weights.

    Args:
        name: A timm model, `net.py:Net`, `package.module:function`, the folder of a finished run, or a recipe.
        input_size: The shape of one sample: C,H,W, or one number for so many tokens. By default that of the
            recipe's data, the run's ONNX file or the model's configuration; else what the first layer tells.
        form: The slim network's form, `module` or `graph`.
        kwargs: Arguments for the model, as a JSON object.
        code: The file that defines the classes of a run's network, where they are the user's own.
        tell: Gets a line for what is run, and one for what the inputs are where that was not given.

    Returns:
        The graph.

    Raises:
        RecipeError: The name, the size or the arguments can't be used.
        ModelError: The model can't be built or traced.
    """
    tell = tell or Reporter().stage
    return _traced(name, _recipe(name, tell), input_size, form, kwargs, code, tell)


def _traced(
    name: str,
    recipe: Recipe | None,
    input_size: str | None,
    form: Form,
    kwargs: str | None,
    code: str | None,
    tell: Tell,
) -> DependencyGraph:
    """The graph of a model, which is the recipe's where there is one."""
    size = parse_size(input_size) if input_size else None
    if recipe is not None and (kwargs or code):
        raise RecipeError(f"--kwargs and --code are for models, and {name} is a recipe: write them into it")
    spec = recipe.model if recipe else spec_from_text(name, kwargs, code)
    model = build_model(spec.untrained(), 0, tell)
    if size:
        inputs, line = example_inputs(model, size)
        tell(line)
    elif recipe:
        inputs = load_data(recipe.data, model, recipe.seed, task=make_task(recipe.task, tell), tell=tell).one
    elif (inputs_of_run := _inputs_of_run(name)) is not None:
        inputs = inputs_of_run
    else:
        inputs, line = example_inputs(model)
        if line:
            tell(line)
    return trace(model, inputs, form=form)


def _recipe(name: str, tell: Tell) -> Recipe | None:
    """The recipe of this name; None if it names a model."""
    named = name in shipped() and name not in architectures()  # resnet50 is timm's model first
    return read_recipe(name, tell=tell) if named or name.endswith((".yaml", ".yml")) else None


def _inputs_of_run(folder: str) -> Any:
    """Inputs as the ONNX file in a run's folder takes them; None if no file says."""
    path = Path(folder) / "slim.onnx"
    return inputs_of_onnx(path) if path.is_file() else None


def profile_model(
    name: str,
    input_size: str | None,
    options: Mapping[str, Any],
    seconds: float,
    refresh: bool,
    kwargs: str | None = None,
    code: str | None = None,
) -> tuple[DependencyGraph, CostModel]:
    """Traces a model, as `inspect_model` does, and measures what its widths cost on this machine.

    If the engine that a recipe names does not tell its kernels' times, the kernels are those of the default runtime.

    Args:
        name: As in `inspect_model`.
        input_size: As in `inspect_model`.
        options: `threads`, `batch` and `dtype`; None for what the recipe says, or else the runtime's default.
        seconds: How long slim networks are timed.
        refresh: Whether to measure again what is kept on disk.
        kwargs: Arguments for the model, as a JSON object.
        code: The file that defines the classes of a run's network, where they are the user's own.

    Returns:
        The graph and the cost model.

    Raises:
        RecipeError: As `inspect_model`, and for a runtime that is not here.
        ModelError: As `inspect_model`.
    """
    reporter = Reporter()
    recipe = _recipe(name, reporter.stage)
    tells = recipe is not None and recipe.runtime.runtime().tells_kernels
    keys = {*options, "engine", "device"} if tells else set(options)
    defaults = recipe.runtime.model_dump(include=keys) if recipe else {}
    runtime = Runtime(**{**defaults, **{key: value for key, value in options.items() if value is not None}})
    with reporter.console.status(escape(f"{name}: building and tracing")):
        graph = _traced(name, recipe, input_size, "module", kwargs, code, reporter.stage)
    with reporter.bar("finding the channel counts that this machine's runtime is fast with") as update:
        multiples = learn_multiples(runtime, refresh=refresh, progress=update, tell=reporter.stage)
    with reporter.bar("timing the network's kernels at several widths") as update:
        cost = learn_cost(graph, runtime, seconds=seconds, multiples=multiples, refresh=refresh, progress=update)
    return graph, cost


def scan(recipe: Path, overrides: Sequence[str] = ()) -> tuple[DependencyGraph, Sensitivity]:
    """Traces a recipe's model and measures what pruning each group alone costs.

    Args:
        recipe: The recipe's file.
        overrides: Keys and values, as `--set` takes them.

    Returns:
        The graph and the sensitivity of its groups.

    Raises:
        RecipeError: There is nothing to scan by, or the recipe trains its network, or ranks layer by layer by weights.
    """
    reporter = Reporter()
    scans = next(name for name, allocation in ALLOCATIONS.items() if allocation.needs == {"scan"})
    of_dense = (f"prune.allocation={scans}", "prune.schedule=null")  # whatever the recipe's own, which may not scan
    checked = read_recipe(recipe, (*overrides, *of_dense), reporter.stage)
    criterion, flaw = criterion_of(checked.prune.criterion), ""
    if checked.train is not None:
        flaw = "the recipe trains its network first: give trained weights by model.weights, and --set train=null"
    elif "widths" in criterion.needs and not criterion.ranks_consumed:
        flaw = f"{criterion.name} ranks for the widths of a plan: scan by another, such as --set prune.criterion=l1"
    if flaw:
        raise RecipeError(f"{recipe}: {flaw}")
    form = {"form": "graph" if checked.prune.form == "graph" else "module", "note": ""}
    with tempfile.TemporaryDirectory() as nowhere:
        runner = runner_of(checked, reporter, Artefacts(Path(nowhere)), {"form": form})
        result = runner.value("scores").sensitivity
    assert result is not None
    if not result.losses:
        raise RecipeError(f"{recipe}: {result.notes[0] if result.notes else 'there is no group to scan'}")
    return runner.value("graph"), result


def parse_size(text: str) -> tuple[int, ...]:
    """Parses `3,224,224` into numbers. Raises RecipeError for anything else."""
    try:
        size = tuple(int(part) for part in text.split(","))
    except ValueError:
        size = ()
    if not size or min(size) < 1:
        raise RecipeError(
            f"--input-size {text}: give whole numbers, for example three whole numbers as C,H,W (3,224,224) for an "
            "image, or one (16) for so many tokens"
        )
    return size
