"""A plan at a budget, or at the smallest budget that can be met, in the form of the slim network that cuts more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

import structprune as sp

from ..errors import BudgetError, StructPruneError
from ..typing import Form
from .worker import Notes, Record, describe


@dataclass
class Reached:
    """A plan in one form of the slim network, and how far it cuts the MACs (2.0: to one half)."""

    form: str
    plan: sp.Plan
    cut: float
    facts: Record


def forms() -> tuple[Form, ...]:
    """The forms that `trace` offers for the slim network, the preferred one first."""
    return "module", "graph"


def reach(model: nn.Module, x: Tensor, criterion: Any, task: Record, notes: Notes) -> Reached:
    """The plan at the task's budget, or at the smallest that can be met; the other form is tried where one falls short.

    Raises what the preferred form raised if no form can be planned.
    """
    plans: list[Reached] = []
    first: Exception | None = None
    notes.record["forms"] = {}
    for form in forms():
        try:
            plans.append(attempt(model, x, form, criterion, task["budget"], notes))
        except Exception as error:
            if first is None and not plans and not isinstance(error, StructPruneError):
                raise
            first = first or error
            notes.record["forms"][form] = describe(error)
        else:
            notes.record["forms"][form] = {"cut": plans[-1].cut, "prunable": plans[-1].facts["prunable"]}
            if plans[-1].cut >= 0.999 / task["budget"]:
                break
    for form in forms():
        if form not in notes.record["forms"]:
            notes.record["forms"][form] = traced_alone(model, x, form, notes)
    if not plans:
        assert first is not None
        raise first
    best = plans[0]
    for other in plans[1:]:
        best = other if other.cut > 1.01 * best.cut else best
    notes.record.update(best.facts, form=best.form, cut=best.cut)
    return best


def traced_alone(model: nn.Module, x: Tensor, form: Form, notes: Notes) -> Record:
    """What could go in a form that was not needed: its share of the MACs stands beside the other's."""
    try:
        with notes.stage("trace"):
            return {"prunable": describe_graph(sp.trace(model, x, form=form))["prunable"]}
    except Exception as error:
        return describe(error)


def attempt(model: nn.Module, x: Tensor, form: Form, criterion: Any, budget: float, notes: Notes) -> Reached:
    with notes.stage("trace"):
        graph = sp.trace(model, x, form=form)
    facts = describe_graph(graph)
    notes.record.update({} if "groups" in notes.record else facts)  # the preferred form's, should all be refused
    with notes.stage("plan"):
        scores = sp.score(graph, criterion)
        try:
            plan = sp.plan(graph, scores, {"macs": budget}, align=1)
        except BudgetError as error:
            if not facts["prunable"]:
                raise
            budget = smallest_budget(graph, scores, 1 - facts["prunable"], error)
            plan = sp.plan(graph, scores, {"macs": budget}, align=1)
    return Reached(form, plan, round(plan.macs["dense"] / max(plan.macs["slim"], 1), 4), {**facts, "budget": budget})


def smallest_budget(graph: Any, scores: Any, least: float, refusal: BudgetError) -> float:
    """The smallest share of the MACs, rounded up to four digits, that a plan can meet: as the error names it, or by
    bisection from `least`, the share with one unit a group (which min_channels and max_ratio may not allow)."""
    if named := re.search(r"macs >= (\d*\.\d+)", str(refusal)):
        return min(float(named[1]), 1.0)
    low, high = round(10_000 * least), 10_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            sp.plan(graph, scores, {"macs": middle / 10_000}, align=1)
            high = middle
        except BudgetError:
            low = middle
    return high / 10_000


def describe_graph(graph: Any) -> Record:
    dense = graph.macs()
    narrow = graph.macs({group.name: np.arange(1) for group in graph.groups})
    nodes = getattr(graph, "nodes", None)
    return {
        "traced": True,
        "nodes": nodes if isinstance(nodes, int) else None,
        "groups": len(graph.groups),
        "macs": dense,
        "prunable": round(1 - narrow / max(dense, 1), 4),
        "barriers": [
            {"op": b.op, "module": b.module, "reason": b.reason, "channels": b.channels, "line": b.line}
            for b in graph.barriers
        ],
    }
