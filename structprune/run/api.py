"""`run`, and the prefixes of it that other commands take."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.markup import escape

from ..argument_checks import checked, flag, instance, optional, several
from ..errors import GateError, RecipeError, StoreError
from ..launch import leads
from ..process_state import TORCH, settings_kept
from ..progress import Reporter
from ..recipe import Recipe, read_recipe
from ..records import Plan
from ..report import Report
from ..store import atomic_files
from ..store.artefacts import Artefacts
from ..store.cleaning import at_work
from . import stages
from .folder import RunFolder
from .processes import Crew, crew_of_launch, follow, lead
from .quality_bounds import check_bounds
from .quality_search import search
from .runner import Runner

__all__ = ["plan_recipe", "rehearse", "run", "run_recipe", "runner_of", "stages"]


@checked(
    recipe=instance((str, os.PathLike, Recipe), "a path, or what read_recipe gives"),
    out=optional(instance((str, os.PathLike), "a path")),
    overrides=several(instance(str, ""), "strings a.b=value, in a list"),
    resume=flag,
    plan_only=flag,
    reporter=optional(instance(Reporter, "a Reporter")),
)
def run(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    plan_only: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Runs a recipe into a folder and returns its report.

    What its stages make (trained weights, scores, the plan, ...) is kept in the store beside the folder, and found
    again by whatever run needs just the same.

    Args:
        recipe: a path, or what `read_recipe` gives.
        out: the folder; by default runs/NAME, NAME being the recipe's.
        overrides: strings `a.b=value`.
        resume: goes on with a run that was interrupted in `out`, or stopped after its plan.
        plan_only: stops after plan.json, and returns the plan as a dict.
        reporter: shows progress; by default on standard error.

    Returns:
        What report.json holds. Whether bounds of quality were met stands in `search.bounds` there.

    Raises:
        BudgetError: no network is within the recipe's bounds.
        StructPruneError: for other bad input, before anything is written into `out`.
        GateError: the slim network is not the one planned. A report.json says why (but where the network does not run),
            and there is no slim artefact.

    Example:
        >>> quick = ["model.name=test_resnet", "data.image_size=16", "train=null", "finetune=null"]
        >>> plan = sp.run("recipes/quickstart.yaml", "runs/quick", overrides=quick, plan_only=True)
        >>> plan["macs"]["slim"] < 0.26 * plan["macs"]["dense"]
        True
    """
    if plan_only:
        plan = plan_recipe(recipe, out, overrides=overrides, resume=resume, reporter=reporter)
        return json.loads(plan.to_json())
    return run_recipe(recipe, out, overrides=overrides, resume=resume, reporter=reporter).to_data()


def run_recipe(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Report:
    """Runs a recipe as `run` does, which gives plain data.

    Args:
        recipe: A path, or what `read_recipe` gives.
        out: The folder; by default runs/NAME.
        overrides: Strings `a.b=value`.
        resume: Goes on with a run that was interrupted in `out`, or stopped after its plan.
        reporter: Shows progress; by default on standard error.

    Returns:
        The record that report.json is written from.

    Raises:
        StructPruneError: As for `run`.
    """
    report = _claimed(recipe, out, overrides, resume, False, reporter)
    assert isinstance(report, Report)
    return report


def plan_recipe(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Plan:
    """Runs a recipe up to plan.json, as `run` does with `plan_only`.

    Args:
        recipe: A path, or what `read_recipe` gives.
        out: The folder; by default runs/NAME.
        overrides: Strings `a.b=value`.
        resume: Goes on with a run that was interrupted in `out`.
        reporter: Shows progress; by default on standard error.

    Returns:
        The plan.

    Raises:
        StructPruneError: As for `run`.
    """
    plan = _claimed(recipe, out, overrides, resume, True, reporter)
    assert isinstance(plan, Plan)
    return plan


@settings_kept()
def _claimed(
    recipe: str | Path | Recipe,
    out: str | Path | None,
    overrides: Sequence[str],
    resume: bool,
    plan_only: bool,
    reporter: Reporter | None,
) -> Report | Plan:
    """Runs in a folder that takes this recipe: its plan, or its report. Of several processes the first one does."""

    def claimed(crew: Crew | None = None) -> Report | Plan:
        return _claimed_by_one(recipe, out, overrides, resume, plan_only, reporter, crew)

    with crew_of_launch() as crew:
        if crew is None:
            return claimed()
        return lead(crew, lambda: claimed(crew)) if leads() else follow(crew, runner_of)


def _claimed_by_one(
    recipe: str | Path | Recipe,
    out: str | Path | None,
    overrides: Sequence[str],
    resume: bool,
    plan_only: bool,
    reporter: Reporter | None,
    crew: Crew | None,
) -> Report | Plan:
    name = Path(recipe).stem if isinstance(recipe, (str, Path)) else "run"
    reporter = reporter or Reporter()
    checked = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides, reporter.stage)
    if out is not None and not str(out).strip():
        raise RecipeError("the output folder's name is empty: give one by --out, or leave it out for runs/NAME")
    if crew is not None:
        crew.recipe = checked
    folder = RunFolder(Path(out) if out is not None else Path("runs") / name)
    finished = folder.claim(checked, resume)
    if finished is not None:
        return Plan.read(folder.path / "plan.json") if plan_only else finished
    try:
        with at_work(folder.store.root):
            return _run(checked, folder, name, resume, plan_only, reporter)
    except Exception as error:
        if atomic_files.no_room(error):
            raise StoreError(
                f"there is no room left on the disk of {folder.path} or of the temporary folder "
                f"{tempfile.gettempdir()}: make room, and go on by --resume; what was finished is kept"
            ) from error
        raise


def _run(
    recipe: Recipe, folder: RunFolder, name: str, resume: bool, plan_only: bool, reporter: Reporter
) -> Report | Plan:
    runner = runner_of(recipe, reporter, folder.store)
    with reporter.console.status(escape(f"{recipe.model.name}: building and tracing")):  # no line before an error's
        traced = runner.value("traced")
    check_bounds(recipe, runner.value("task"))
    runner.settle("form")
    with folder.opened(recipe, resume, reporter):
        reporter.stage(f"{recipe.model.name}: {len(traced.groups)} groups of channels, {len(traced.barriers)} barriers")
        for caution in recipe.cautions:
            reporter.note(caution)
        if recipe.prune.budget.bounds:
            runner = search(runner, recipe, reporter)
        plan = runner.value("plan")
        folder.write_plan(plan)
        _say(plan, recipe, reporter)
        if plan_only:
            folder.place(runner, ("dense",))
            return plan
        report: Report = runner.value("report")
        problems = [reason for name in runner.gates() for reason in runner.reasons(name)]
        folder.close(report, runner, name, not problems)
        if problems:
            raise GateError(
                f"the slim network is not the one planned, so no slim artefact was kept: {'; '.join(problems)}. "
                f"{folder.path / 'report.json'} has the measurements; please report this model"
            )
        return report


@settings_kept()
def rehearse(recipe: Recipe, reporter: Reporter | None = None) -> None:
    """Does all that a run does before it writes anything.

    What widths cost is learned here, if the budget asks for it, and kept on disk.

    Args:
        recipe: The recipe.
        reporter: Shows progress; by default on standard error.

    Raises:
        StructPruneError: Something is wrong with the recipe, its model, its data or its budget.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        runner = runner_of(recipe, reporter or Reporter(), Artefacts(Path(nowhere)))
        check_bounds(recipe, runner.value("task"))
        runner.settle("form")


def runner_of(
    recipe: Recipe, reporter: Reporter, store: Artefacts, artefacts: Mapping[str, Any] | None = None
) -> Runner:
    """Prepares the stages of a recipe, none of them run yet, under the recipe's seed.

    Args:
        recipe: The recipe.
        reporter: Shows progress.
        store: Where stages keep what they make.
        artefacts: What is there already, by name, so that no stage makes it.

    Returns:
        The runner of the stages.
    """
    torch.manual_seed(recipe.seed)
    np.random.seed(recipe.seed)
    warnings.filterwarnings("ignore", category=UserWarning, module=TORCH)
    return Runner(recipe, store, reporter, artefacts)


def _say(plan: Plan, recipe: Recipe, reporter: Reporter) -> None:
    cut = plan.macs["dense"] / plan.macs["slim"]
    reporter.stage(
        f"plan: {len(plan.groups)} groups, MACs {plan.macs['dense']:,} to {plan.macs['slim']:,} ({cut:.2f}× cut)"
        + (f", {len(plan.merges['groups'])} groups merged" if plan.merges is not None else ""),
        budget=plan.budget,
    )
    for note in plan.notes:
        reporter.note(note)
