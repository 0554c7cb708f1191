"""The child process of zoo.py: takes tasks as JSON lines on its input and answers with JSON lines.

A task is `{"op": ..., "model": ..., ...}` (see `OPS`). While it runs, `{"stage": ..., "record": ...}` says how far it
is and what it knows, so that a child that is killed loses little; `{"done": record}` ends it. What a model prints
goes to the error stream. The process ends with its input, so none outlives its parent.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import logging
import os
import queue
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from zoo_pool import memory

import structprune as sp  # before timm: it declares torchvision's op names
from structprune.errors import BudgetError, StructPruneError
from structprune.graph.barriers import UNKNOWN

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import timm
    from timm.data import resolve_model_data_config

Record = dict[str, Any]
REAL_LIMIT = 200_000_000  # parameters of a model that --plan-only may build for real where meta tensors do not do


class Notes:
    """What is known of a model so far, told to the parent at the start of each stage."""

    def __init__(self, tell: Callable[[Record], None]) -> None:
        self.record: Record = {"seconds": {}}
        self._tell = tell

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.record["stage"] = name
        self._tell({"stage": name, "record": self.record})
        start, seconds = time.perf_counter(), self.record["seconds"]
        try:
            yield
        finally:
            seconds[name] = round(seconds.get(name, 0) + time.perf_counter() - start, 2)


# --- models ------------------------------------------------------------------------------------------------


def build(name: str, device: str, seed: int) -> nn.Module:
    """A timm model in evaluation mode, with random weights (on "meta" with none)."""
    torch.manual_seed(seed)
    with torch.device(device):
        return timm.create_model(name, pretrained=False).eval()


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def example(model: nn.Module, device: str, seed: int) -> Tensor:
    """One random image of the model's own default size."""
    size = resolve_model_data_config(model)["input_size"]
    if device == "meta":
        return torch.empty(1, *size, device=device)
    return torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))


# --- planning ----------------------------------------------------------------------------------------------


@dataclass
class Reached:
    """A plan in one form of the slim network, and how far it cuts the MACs (2.0: to one half)."""

    form: str
    plan: sp.Plan
    cut: float
    facts: Record


def forms() -> tuple[str, ...]:
    """The forms that `trace` offers for the slim network, the preferred one first; "" is a trace without forms."""
    return ("module", "graph") if "form" in inspect.signature(sp.trace).parameters else ("",)


def reach(model: nn.Module, x: Tensor, criterion: Any, task: Record, notes: Notes) -> Reached:
    """The plan at the task's budget, or at the smallest that can be met; the other form is tried where one falls short.

    Raises what the preferred form raised if no form can be planned.
    """
    found: list[Reached] = []
    first: Exception | None = None
    notes.record["forms"] = {}
    for form in forms():
        try:
            found.append(attempt(model, x, form, criterion, task["budget"], notes))
        except Exception as error:
            if first is None and not found and not isinstance(error, StructPruneError):
                raise
            first = first or error
            notes.record["forms"][form] = describe(error)
        else:
            notes.record["forms"][form] = {"cut": found[-1].cut, "prunable": found[-1].facts["prunable"]}
            if found[-1].cut >= 0.999 / task["budget"]:
                break
    for form in forms():
        if form and form not in notes.record["forms"]:
            notes.record["forms"][form] = traced_alone(model, x, form, notes)
    if not found:
        assert first is not None
        raise first
    best = found[0]
    for other in found[1:]:
        best = other if other.cut > 1.01 * best.cut else best
    notes.record.update(best.facts, form=best.form, cut=best.cut)
    return best


def traced_alone(model: nn.Module, x: Tensor, form: str, notes: Notes) -> Record:
    """What could go in a form that was not needed: its share of the MACs stands beside the other's."""
    try:
        with notes.stage("trace"):
            return {"prunable": describe_graph(sp.trace(model, x, form=form))["prunable"]}
    except Exception as error:
        return describe(error)


def attempt(model: nn.Module, x: Tensor, form: str, criterion: Any, budget: float, notes: Notes) -> Reached:
    with notes.stage("trace"):
        graph = sp.trace(model, x, form=form) if form else sp.trace(model, x)
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


# --- tasks -------------------------------------------------------------------------------------------------


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
    measured = gate.to_dict()
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
    found: dict[str, int | None] = {}
    for name in task["models"]:
        with notes.stage(name):
            found[name] = None
            for device in ("meta", "cpu"):
                with suppress(Exception):
                    found[name] = count(build(name, device, task["seed"]))
                    break
    notes.record["sizes"] = found
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


Operation = Callable[[Record, Notes], str]  # does a task and says which status it ends with
OPS: dict[str, Operation] = {
    "barriers": barriers,
    "hello": hello,
    "plan": plan_only,
    "sizes": sizes,
    "sweep": sweep,
}


def perform(task: Record, tell: Callable[[Record], None], ops: Mapping[str, Operation]) -> Record:
    notes = Notes(tell)
    try:
        notes.record["status"] = ops[task["op"]](task, notes)
    except Exception as error:
        notes.record.update(describe(error))
    notes.record["peak_memory"] = memory(os.getpid())[1]
    return notes.record


def describe(error: Exception) -> Record:
    """The status and message that an exception stands for; what is not raised on purpose brings its last frames."""
    if isinstance(error, StructPruneError):
        return {"status": "refused", "error": type(error).__name__, "message": one_line(error)}
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return {"status": "memory", "error": type(error).__name__, "message": one_line(error)}
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-6:]]
    return {"status": "error", "error": type(error).__name__, "message": one_line(error), "frames": frames}


def one_line(error: Exception, limit: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


# --- process -----------------------------------------------------------------------------------------------


def read_tasks(tasks: queue.Queue[Record]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)  # the parent is gone, or needs this process no longer


def main(ops: Mapping[str, Operation] = OPS) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(message: Record) -> None:
        answers.write(json.dumps(message) + "\n")

    tasks: queue.Queue[Record] = queue.Queue()
    threading.Thread(target=read_tasks, args=(tasks,), daemon=True).start()
    while True:
        task = tasks.get()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        tell({"done": perform(task, tell, ops)})


if __name__ == "__main__":
    main()
