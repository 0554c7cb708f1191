"""Scores, a scan where the allocation goes by one, and the plan: measured, if a budget is of latency."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, cast

from safetensors.numpy import load_file, save_file
from torch import nn

from ...calibration import Batch
from ...calibration.batches import BATCH
from ...cost import CostModel, Lead, lead_over_dense, plan_measured, wants_latency
from ...criteria import NothingToScan, criterion_of, scan_images, score, sensitivity, unscorable
from ...data import Data
from ...graph import DependencyGraph
from ...plan import allocation_of
from ...plan.merging import merge
from ...plan_schema import Latency, Round
from ...recipe import PruneSpec, Recipe, ScanSpec
from ...records import Plan, Scores, Sensitivity
from ...rewrites import Rotation
from ...schedules.round_limits import Goal, amounts_left
from ...store import atomic_files
from ...tasks import Task
from ...train.zero_units import note_zero_units
from ...typing import Budget
from ...user_code_calls import code_named
from ..stage import Work, stage
from .costs import Costs, machine

# A layer-by-layer criterion ranks for widths that a plan by another criterion gives. That one is `l1`, which recipes
# have by default: it needs neither images nor widths, so every recipe can have its scores.
WIDTHS_BY = "l1"


def needs_widths(recipe: Recipe) -> bool:
    return "widths" in criterion_of(recipe.prune.criterion).needs


def first_criterion(recipe: Recipe) -> str:
    """The recipe's criterion, or the one by which the widths are found that it ranks for."""
    return WIDTHS_BY if needs_widths(recipe) else recipe.prune.criterion


def _scored_by(recipe: Recipe, criterion: str) -> dict[str, Any]:
    spec = recipe.prune
    same = criterion == spec.criterion
    return {
        "criterion": criterion,
        "combine": spec.combine if same else None,
        "for": spec.criterion,
        "code": code_named(spec.criterion),
    }


def read_scores(work: Work) -> Scores:
    about = json.loads((work.folder / "scores.json").read_text(encoding="utf-8"))
    curves = about.pop("sensitivity")
    arrays = load_file(work.folder / "scores.safetensors")
    scan = None
    if curves is not None:
        losses = {name: {int(units): loss for units, loss in curve.items()} for name, curve in curves["losses"].items()}
        scan = Sensitivity(losses, curves["notes"], curves.get("inputs", "samples"))
    values = {name: arrays[str(index)] for index, name in enumerate(about.pop("groups"))}
    return Scores(values=values, sensitivity=scan, **about)


def _write_scores(work: Work, scores: Scores) -> None:
    about: dict[str, Any] = {
        "criterion": scores.criterion,
        "groups": list(scores.values),
        "unscored": scores.unscored,
        "notes": scores.notes,
        "widths": scores.widths,
        "sensitivity": None if scores.sensitivity is None else dataclasses.asdict(scores.sensitivity),
    }
    held = {str(index): value for index, value in enumerate(scores.values.values())}
    atomic_files.write(work.folder / "scores.safetensors", lambda path: save_file(held, path))
    atomic_files.write_text(work.folder / "scores.json", json.dumps(about))


@stage(
    "scores",
    after="rotate",
    needs=("base", "graph", "samples", "task", "rotation?"),
    repeats=True,
    makes=("scores", "first_scores"),  # `scan` and `rank` make further `scores`
    spec=lambda recipe: _scored_by(recipe, first_criterion(recipe)),
    read=lambda work: dict.fromkeys(("scores", "first_scores"), read_scores(work)),
)
def score_groups(
    work: Work, base: nn.Module, graph: DependencyGraph, samples: Data, task: Task, rotation: Rotation | None = None
) -> None:
    scores = _score(work, graph, samples, task, None, rotation)
    left_out = unscorable(graph, work.spec["for"])
    values = {name: value for name, value in scores.values.items() if name not in left_out}
    _write_scores(work, dataclasses.replace(scores, values=values, unscored={**scores.unscored, **left_out}))


def _scans(recipe: Recipe) -> bool:
    return allocation_of(recipe.prune.allocation).scans


def _scan_spec(recipe: Recipe) -> dict[str, Any]:
    """The keys of a scan, and the criterion that chooses the units that go, where that is not the one of the scores."""
    name, combine = recipe.prune.criterion, recipe.prune.combine
    own = {"criterion": name, "combine": combine, "code": code_named(name)} if criterion_of(name).ranks_consumed else {}
    return {"scan": recipe.prune.scan, **own}


@stage(
    "scan",
    after="scores",
    needs=("graph", "scores", "samples", "task"),
    makes=("scores",),
    spec=_scan_spec,
    when=_scans,
    read=read_scores,
    title="the scan of each group's sensitivity",
)
def scan(work: Work, graph: DependencyGraph, scores: Scores, samples: Data, task: Task) -> None:
    _write_scores(work, scan_groups(work, graph, scores, samples, task))


def scan_groups(work: Work, graph: DependencyGraph, scores: Scores, samples: Data, task: Task) -> Scores:
    """The scores with what the outputs lose when a share of one group's units goes.

    Where there is nothing to scan by, the scan is empty, by which all groups get the same ratio.
    """
    spec = work.spec["scan"] or ScanSpec()
    images, notes = _images_of_scan(samples, spec)
    what = "scanning the sensitivity of each group"
    with work.reporter.bar(what if images is not None else f"{what}, by random inputs") as update:
        options: dict[str, Any] = {"task": task, "seed": work.seed, "memory": work.memory, "progress": update}
        options.update({key: work.spec[key] for key in ("criterion", "combine") if key in work.spec})
        options.update({"ratios": spec.ratios, **({} if spec.images is None else {"draws": spec.images})})
        try:
            scan = sensitivity(graph, scores, images, **options)
            scan = dataclasses.replace(scan, notes=[*notes, *scan.notes])
        except NothingToScan as error:
            scan = Sensitivity({}, [f"{error}. Without a scan all groups get the same ratio"])
    return dataclasses.replace(scores, sensitivity=scan, notes=[*scores.notes, *scan.notes])


def _images_of_scan(samples: Data, spec: ScanSpec) -> tuple[list[Batch] | None, list[str]]:
    """Calibration images for a scan, or None for random inputs; and what is to be said of that."""
    images = samples.calibration
    if images is None:
        return None, ["there are no calibration images, so the scan of each group was made by random inputs"]
    if (held := sum(batch.images for batch in images)) <= BATCH:
        return None, [
            f"{held} calibration images are too few for a scan, which takes two batches of {BATCH}: it was "
            "made by random inputs"
        ]
    return scan_images(images, *([] if spec.images is None else [spec.images])), []


def _inputs_of_plan(recipe: Recipe) -> tuple[str, ...]:
    measured = ("dense_onnx", "dense_graph") if wants_latency(recipe.prune.budget.as_dict()) else ()
    return ("graph", "scores", "costs", "form", "earlier?", "goal?", *measured)


def _goes_by_groups(recipe: Recipe) -> bool:
    schedule = recipe.prune.schedule
    return schedule is not None and schedule.rounds > 1 and schedule.shape == "groups"


@stage(
    "goal",
    after="scan",
    needs=("graph", "scores", "costs", "goal?"),
    makes=("goal",),
    spec=lambda recipe: recipe.prune,
    when=_goes_by_groups,
)
def set_goal(work: Work, graph: DependencyGraph, scores: Scores, costs: Costs, goal: Goal | None) -> Goal:
    """What all rounds together go to: the widths of one cut of the dense network."""
    if goal is not None:
        return goal
    spec: PruneSpec = work.spec
    assert spec.schedule is not None
    return Goal.of(costs.plan(graph, scores, spec, costs.cost), spec.schedule.rounds)


@stage(
    "rank",
    after="widths",
    needs=("graph", "scores", "widths", "samples", "task", "rotation?"),
    makes=("scores",),
    spec=lambda recipe: _scored_by(recipe, recipe.prune.criterion),
    when=needs_widths,
    read=read_scores,
    title="the layer-by-layer scores",
)
def rank(
    work: Work,
    graph: DependencyGraph,
    scores: Scores,
    widths: Plan,
    samples: Data,
    task: Task,
    rotation: Rotation | None = None,
) -> None:
    ranked = _score(work, graph, samples, task, widths.widths, rotation)
    scan = scores.sensitivity
    notes = [*ranked.notes, *(scan.notes if scan is not None else ())]
    _write_scores(work, dataclasses.replace(ranked, sensitivity=scan, notes=notes))


def _score(
    work: Work,
    graph: DependencyGraph,
    samples: Data,
    task: Task,
    widths: dict[str, int] | None,
    rotation: Rotation | None,
) -> Scores:
    spec = work.spec
    what = f"scoring by {spec['criterion']}" + (", layer by layer" if widths is not None else "")
    with work.reporter.bar(what) as update:
        scores = score(
            graph,
            spec["criterion"],
            samples.calibration,
            task=task,
            combine=spec["combine"],
            widths=widths,
            seed=work.seed,
            memory=work.memory,
            progress=update,
        )
    return scores if rotation is None else rotation.ranked(scores)


@stage(
    "widths",  # a plan by scores that need no widths: its widths are what a layer-by-layer criterion ranks for
    after="goal",
    needs=_inputs_of_plan,
    makes=("widths",),
    spec=lambda recipe: {"prune": recipe.prune, **machine(recipe)},
    when=needs_widths,
    read=lambda work: Plan.read(work.folder / "plan.json"),
)
@stage(
    "plan",
    after="rank",
    needs=lambda recipe: (*_inputs_of_plan(recipe), "widths?"),
    makes=("cut_plan",),
    spec=lambda recipe: {"prune": recipe.prune, **machine(recipe)},
    read=lambda work: Plan.read(work.folder / "plan.json"),
)
def make_plan(
    work: Work,
    graph: DependencyGraph,
    scores: Scores,
    costs: Costs,
    form: dict[str, str],
    earlier: Plan | None,
    goal: Goal | None,
    dense_onnx: Path | None = None,
    dense_graph: DependencyGraph | None = None,
    widths: Plan | None = None,
) -> None:
    if widths is not None and wants_latency(work.spec["prune"].budget.as_dict()):
        plan = _as_measured(work, graph, scores, costs, earlier, widths)
    else:
        plan = _measured(work, graph, scores, costs, dense_onnx, dense_graph, earlier, goal)
    if work.spec["prune"].surgery == "merge" and work.stage == "plan":
        plan = merge(graph, plan)
    plan.notes += [*costs.unsure, *([form["note"]] if form["note"] else []), *note_zero_units(graph, plan)]
    atomic_files.write_text(work.folder / "plan.json", plan.to_json())


@stage("compose", after="plan", needs=("cut_plan", "earlier?"), makes=("plan",))
def compose(work: Work, cut_plan: Plan, earlier: Plan | None) -> Plan:
    """The plan of all cuts so far on the dense network."""
    if earlier is None:
        return cut_plan
    plan = earlier.then(cut_plan)
    _take_timings(plan, cut_plan)
    return plan


def _take_timings(plan: Plan, timed: Plan) -> None:
    """Gives a plan what another's networks were measured to be, beside the dense one."""
    if plan.latency is not None and timed.latency is not None:
        measured = {key: value for key, value in timed.latency.items() if key in ("rounds", "correction")}
        plan.latency = cast(Latency, {**plan.latency, **measured})


def _cost(work: Work, graph: DependencyGraph, costs: Costs, earlier: Plan | None) -> CostModel | None:
    """What widths of the network that is cut cost, where its plan needs to know."""
    if earlier is None or costs.cost is None:
        return costs.cost
    return costs.of_round(graph, work.spec["prune"], work.reporter)


def _as_measured(
    work: Work, graph: DependencyGraph, scores: Scores, costs: Costs, earlier: Plan | None, widths: Plan
) -> Plan:
    """The plan for scores that were made for the widths of one, which were measured."""
    spec: PruneSpec = work.spec["prune"]
    cost, latency, speedup = _cost(work, graph, costs, earlier), widths.latency, widths.budget.get("speedup")
    assert cost is not None
    assert latency is not None
    lead = spec.budget.costs.get("speedup", 1.0) / speedup if speedup else math.inf
    cost = cost.scaled(cost.runtime, latency["dense"])
    plan = costs.plan(graph, scores, spec, cost.corrected(latency.get("correction", 1.0)), earlier, lead=lead)
    _take_timings(plan, widths)
    return plan


def _measured(
    work: Work,
    graph: DependencyGraph,
    scores: Scores,
    costs: Costs,
    dense_onnx: Path | None,
    dense_graph: DependencyGraph | None,
    earlier: Plan | None,
    goal: Goal | None,
) -> Plan:
    """A plan; if a budget is of latency, one whose network has been timed to meet it."""
    spec: PruneSpec = work.spec["prune"]
    cost = _cost(work, graph, costs, earlier)
    if not wants_latency(spec.budget.as_dict()):
        return costs.plan(graph, scores, spec, cost, earlier, goal)
    assert cost is not None
    assert dense_onnx is not None
    assert dense_graph is not None
    budget, lead = spec.budget.as_dict(), Lead(dense_graph)
    if earlier is not None:
        with costs.deadline(spec.planning_seconds) as deadline:
            lead = lead_over_dense(graph, dense_graph, cost, dense=dense_onnx, deadline=deadline)
        assert costs.cost is not None
        cost = cost.scaled(cost.runtime, costs.cost.dense_ms / lead.factor)  # at the pace that the machine had then
        left = amounts_left(spec.budget.costs, earlier, graph, lead.factor)
        if "speedup" not in left:
            work.reporter.stage(
                f"the network is {lead.factor:.2f}× as fast as the dense one already, where this round asks for "
                f"{spec.budget.costs['speedup']:.2f}×"
            )
            return costs.plan(graph, scores, spec, cost, earlier, lead=lead.factor)
        budget = cast(Budget, {**left, "speedup": spec.budget.costs["speedup"]})

    def tell(figures: Round) -> None:
        low, high = figures["ci95"]
        work.reporter.stage(
            f"planned for {figures['predicted']:.2f}×, measured {figures['measured']:.2f}× ({low:.2f} to {high:.2f})",
            **figures,
        )

    with (
        work.reporter.bar("planning and timing slim networks") as update,
        costs.deadline(spec.planning_seconds) as deadline,
    ):
        return plan_measured(
            graph,
            budget,
            cost,
            lambda cost: costs.plan(graph, scores, spec, cost, earlier, lead=lead.factor),
            dense=dense_onnx,
            lead=lead,
            deadline=deadline,
            tell=tell,
            progress=update,
        )
