"""What a child process of the zoo does with one of timm's models: `python -m structprune.suites.zoo.tasks`."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version
from typing import Any

import timm
import torch
from torch import Tensor

import structprune as sp

from ...graph.barriers import UNKNOWN
from ..planning import describe_graph, forms, reach
from ..timm_models import build, count, example
from ..worker import Notes, Operation, Record, one_line, serve

REAL_LIMIT = 200_000_000  # parameters of a model that --plan-only may build for real where meta tensors do not do


def sweep(task: Record, notes: Notes) -> str:
    """Build, trace, plan, prune, verify; says which status the model ends with."""
    with notes.stage("build"):
        model = build(task["model"], "cpu", task["seed"])
        x = example(model, "cpu", task["seed"])
        notes.record.update(params=count(model), input=list(x.shape[1:]))
    best = reach(model, x, "l1", task, notes)
    with notes.stage("prune"):
        slim = sp.prune(model, best.plan)
    with notes.stage("verify"):
        gate = sp.verify(model, slim, best.plan, x)
    measured = gate.record().to_data()
    notes.record["gate"] = {
        name: {key: value[key] for key in ("state", "passed", "max_rel", "tolerance", "detail") if key in value}
        for name, value in measured.items()
        if isinstance(value, dict) and "passed" in value
    }
    notes.record.update(gate_passed=gate.passed, reasons=gate.reasons(), onnx_passed=gate.onnx.passed)
    return "passed" if gate.passed else "failed-gate"


def plan_only(task: Record, notes: Notes) -> str:
    """Build on the meta device, trace, plan; for real where meta tensors do not do and the model is small enough."""
    try:
        reach_by_position("meta", task, notes)
    except Exception as error:
        if notes.record.get("traced") or notes.record.get("params", 0) >= REAL_LIMIT:
            raise
        notes.record["meta_error"] = one_line(error)
        reach_by_position("cpu", task, notes)
    return "planned"


def barriers(task: Record, notes: Notes) -> str:
    """Build on the meta device and trace in both forms; as `plan_only` does, for real where meta tensors do not do."""
    try:
        trace_forms("meta", task, notes)
    except Exception as error:
        if notes.record["traces"] or notes.record.get("params", 0) >= REAL_LIMIT:
            raise
        notes.record["meta_error"] = one_line(error)
        trace_forms("cpu", task, notes)
    return "traced"


def trace_forms(device: str, task: Record, notes: Notes) -> None:
    traces = notes.record["traces"] = {}
    with notes.stage("build"):
        model = build(task["model"], device, task["seed"])
        x = example(model, device, task["seed"])
        notes.record.update(params=count(model), input=list(x.shape[1:]), device=device)
    for form in forms():
        with notes.stage(f"trace {form}"):
            graph = sp.trace(model, x, form=form)
        unexplained = [f"{key} {dim}" for (key, dim), reason in graph.reasons.items() if reason == UNKNOWN]
        traces[form] = {**describe_graph(graph), "unexplained": unexplained}


def reach_by_position(device: str, task: Record, notes: Notes) -> None:
    with notes.stage("build"):
        model = build(task["model"], device, task["seed"])
        x = example(model, device, task["seed"])
        notes.record.update(params=count(model), input=list(x.shape[1:]), device=device)
    reach(model, x, by_position, task, notes)


def by_position(group: Any) -> Tensor:
    """Scores that read no weights: later units are better."""
    return torch.arange(1.0, group.units + 1)


def sizes(task: Record, notes: Notes) -> str:
    """The parameters of each of `models`; null where timm can't build one."""
    parameters: dict[str, int | None] = {}
    for name in task["models"]:
        with notes.stage(name):
            parameters[name] = None
            for device in ("meta", "cpu"):
                with suppress(Exception):
                    parameters[name] = count(build(name, device, task["seed"]))
                    break
    notes.record["sizes"] = parameters
    return "done"


def hello(task: Record, notes: Notes) -> str:
    """The families of timm with their models, and the versions at work."""
    families = {family: timm.list_models(module=family) for family in timm.list_modules()}
    packages = ("structprune", "torch", "timm", "onnxruntime")
    notes.record.update(
        families=families,
        versions={**{name: version(name) for name in packages}, "torch": torch.__version__},
    )
    return "done"


OPS: dict[str, Operation] = {
    "barriers": barriers,
    "hello": hello,
    "plan": plan_only,
    "sizes": sizes,
    "sweep": sweep,
}

if __name__ == "__main__":
    serve(OPS)
