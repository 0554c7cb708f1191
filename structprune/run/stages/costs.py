"""The graph, and a rehearsal of the plan: an impossible budget is met before any training.

What widths cost on the runtime is learned here, if the budget asks for it, and kept on disk by `cost`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import fx, nn

from ...cost import (
    CostModel,
    Deadline,
    check_may_time,
    learn_cost,
    learn_multiples,
    may_time,
    standard_multiples,
    wants_latency,
)
from ...criteria import unscorable
from ...data import Data
from ...errors import BudgetError
from ...graph import DependencyGraph, trace
from ...plan import allocation_of
from ...plan import plan as make_plan
from ...progress import Reporter
from ...recipe import PruneSpec, Recipe
from ...records import Plan, Scores, Sensitivity
from ...runtimes import Runtime, environment
from ...schedules.round_limits import Goal, amounts_left, check_rounds, fewest, keeping, towards
from ...store import atomic_files
from ...typing import Budget, Form
from ...user_code_calls import code_named
from ..stage import Work, stage

REHEARSED = "uniform"  # the allocation that stands in for one that is not quick
LEARNING = 0.75  # of the time for planning may have gone when costs are learned; the rest is for timing plans


@dataclass
class Costs:
    """What is known of the runtime: the multiples of widths, and what widths cost where a budget asks for it.

    `form` is that of the slim network, and `note` says why it is no module where one was wanted. `unsure` has notes of
    multiples that timings do not agree on or that are of a table, and of costs that there was no time for; `spent` the
    seconds of planning so far.
    """

    runtime: Runtime
    form: Form = "module"
    note: str = ""
    multiples: dict[str, int] = field(default_factory=dict)
    cost: CostModel | None = None
    unsure: list[str] = field(default_factory=list)
    spent: float = 0.0
    _of_round: tuple[DependencyGraph, CostModel] | None = None

    @contextmanager
    def deadline(self, seconds: float, share: float = 1.0) -> Iterator[Deadline]:
        """What is left of a share of the time for planning; a quarter of the whole at least."""
        deadline = Deadline(max(share * seconds - self.spent, (1 - LEARNING) * seconds))
        try:
            yield deadline
        finally:
            self.spent += deadline.spent

    def learn(self, graph: DependencyGraph, spec: PruneSpec, reporter: Reporter) -> CostModel:
        """What widths of a network cost, kernel by kernel."""
        what = f"timing the network's kernels at other widths (all planning: {spec.planning_seconds:g} s at most)"
        with reporter.bar(what) as update, self.deadline(spec.planning_seconds, LEARNING) as deadline:
            options: dict[str, Any] = {"deadline": deadline, "progress": update, "tell": self.unsure.append}
            return learn_cost(graph, self.runtime, multiples=self.multiples, **options)

    def of_round(self, graph: DependencyGraph, spec: PruneSpec, reporter: Reporter) -> CostModel:
        """The same of a network that was cut before: its kernels are others than the dense network's."""
        if self._of_round is None or self._of_round[0] is not graph:
            self._of_round = graph, self.learn(graph, spec, reporter)
        return self._of_round[1]

    def plan(
        self,
        graph: DependencyGraph,
        scores: Scores,
        spec: PruneSpec,
        cost: CostModel | None = None,
        earlier: Plan | None = None,
        goal: Goal | None = None,
        lead: float = 1.0,
    ) -> Plan:
        """A plan by these multiples, and by `cost` where there is one. Where there is an `earlier` one, of the network
        that it leaves, `lead` times as fast as the dense one, within the limits that the dense network has; where there
        is a `goal`, of its part of that."""
        budget, allocation = spec.budget.as_dict(), allocation_of(spec.allocation)
        if earlier is not None:
            budget = cast(Budget, amounts_left(spec.budget.costs, earlier, graph, lead))
            allocation = keeping(allocation, fewest(earlier, graph, spec.max_ratio))
        if goal is not None:
            number = 1 if earlier is None else 1 + len(earlier.constraints.get("cuts", [earlier]))
            allocation = towards(allocation, goal.of_round(number))
            budget = budget if number == goal.rounds else {"macs": 1.0}
        return make_plan(
            graph,
            scores,
            budget,
            allocation=allocation,
            min_channels=spec.min_channels,
            max_ratio=spec.max_ratio,
            align=self.multiples if spec.align == "auto" else spec.align,
            ignore=spec.ignore,
            cost=cost,
        )


def machine(recipe: Recipe) -> dict[str, Any]:
    """What a plan hangs on beside the recipe's `prune`: the code that it names, where the network is to run, and
    whether that may be timed."""
    here = environment().model_dump(include={"processor", "instructions", "cores"})
    code = {"criterion": code_named(recipe.prune.criterion), "allocation": code_named(recipe.prune.allocation)}
    return {"runtime": recipe.runtime, **here, "timed": may_time(), **code}


@stage(
    "traced",
    after="data",
    needs=("model", "samples"),
    makes=("traced",),
    spec=lambda recipe: recipe.prune.form,
)
def trace_model(work: Work, model: nn.Module, samples: Data) -> DependencyGraph:
    """In module form where the recipe leaves it open, but what is an fx graph already (of an earlier run) stays one."""
    form: Form = work.spec if work.spec != "auto" else "graph" if isinstance(model, fx.GraphModule) else "module"
    return trace(model, samples.one, form=form)


@stage(
    "costs",
    after="traced",
    needs=("traced", "model", "samples"),
    makes=("costs",),
    spec=lambda recipe: {"prune": recipe.prune, **machine(recipe)},
)
def rehearse(work: Work, traced: DependencyGraph, model: nn.Module, samples: Data) -> Costs:
    """The costs, once a plan with them was found possible: in module form, or in graph form where that is allowed."""
    spec = work.spec["prune"]
    allocation = allocation_of(spec.allocation)
    check_may_time(spec.budget.as_dict(), f"allocation {allocation.name}" if "cost" in allocation.needs else "")
    if spec.schedule is not None and spec.schedule.shape == "groups":
        check_rounds(spec.schedule.rounds, traced)
    costs = Costs(work.spec["runtime"].runtime(), traced.form)
    try:
        _rehearse(costs, traced, spec, work.reporter)
    except BudgetError:
        if spec.form != "auto":
            raise
        freer = trace(model, samples.one, form="graph")
        _rehearse(costs, freer, spec, work.reporter)
        costs.form, costs.note = freer.form, _why_graph(traced, model)
    return costs


@stage(
    "form",
    after="costs",
    needs=("costs",),
    makes=("form",),
    spec=lambda recipe: {"prune": recipe.prune, **machine(recipe)},
    read=lambda work: json.loads((work.folder / "form.json").read_text(encoding="utf-8")),
)
def keep_form(work: Work, costs: Costs) -> None:
    atomic_files.write_text(work.folder / "form.json", json.dumps({"form": costs.form, "note": costs.note}))


@stage("graph", after="form", needs=("traced", "form", "model", "samples"), makes=("graph", "dense_graph"))
def choose_graph(
    work: Work, traced: DependencyGraph, form: Mapping[str, Any], model: nn.Module, samples: Data
) -> dict[str, DependencyGraph]:
    graph = traced if traced.form == form["form"] else trace(model, samples.one, form=form["form"])
    return {"graph": graph, "dense_graph": graph}


def _why_graph(graph: DependencyGraph, model: nn.Module) -> str:
    note = f"the slim network is an fx.GraphModule: as a {type(model).__name__} it can't meet the budget"
    if not graph.barriers:
        return note
    worst = max(graph.barriers, key=lambda barrier: barrier.channels)
    return (
        f"{note}, with {len(graph.barriers)} barriers, such as {worst.op} in {worst.module or 'forward'} "
        f"({worst.line}): {worst.reason}"
    )


def _rehearse(costs: Costs, graph: DependencyGraph, spec: PruneSpec, reporter: Reporter) -> None:
    runtime = costs.runtime
    if not runtime.files:  # what can't be compiled is said now, and not after the training
        runtime.open(runtime.prepare(graph.model, graph.inputs, Path()))
    if spec.align == "auto" and not costs.multiples and not may_time():
        standard = standard_multiples()
        costs.multiples, costs.unsure = dict(standard.steps), [*standard.notes]
    if spec.align == "auto" and not costs.multiples:
        what = "finding the channel counts that this machine's runtime is fast with"
        with reporter.bar(what) as update, costs.deadline(spec.planning_seconds, 1 - LEARNING) as deadline:
            costs.multiples = learn_multiples(runtime, deadline=deadline, progress=update, tell=costs.unsure.append)
    allocation = allocation_of(spec.allocation)
    if wants_latency(spec.budget.as_dict()) or "cost" in allocation.needs:
        costs.cost = costs.learn(graph, spec, reporter)
    left_out = unscorable(graph, spec.criterion)
    curve = {group.name: {1: 1.0, group.units: 0.0} for group in graph.groups}
    flat = Scores(
        spec.criterion,
        {group.name: np.ones(group.units) for group in graph.groups if group.name not in left_out},
        left_out,
        sensitivity=Sensitivity(curve) if "scan" in allocation.needs else None,
    )
    rehearsed = spec if allocation.quick else spec.model_copy(update={"allocation": REHEARSED})
    costs.plan(graph, flat, rehearsed, costs.cost)
