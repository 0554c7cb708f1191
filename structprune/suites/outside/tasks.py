"""What a child process does with one network: `python -m structprune.suites.outside.tasks`."""

from __future__ import annotations

from typing import Any

import torch

import structprune as sp

from ..planning import reach
from ..worker import Notes, Record, error_line, serve
from . import NETWORKS, PACKAGES
from .steps import other_batch, reloaded, training_step, zeroed

STEPS = (zeroed, reloaded, other_batch, training_step)


def outside(task: Record, notes: Notes) -> str:
    """All the steps for one network; `right` if each holds, else what does not hold is in `faults`."""
    name = task["model"]
    notes.record["package"] = PACKAGES[name]
    with notes.stage("build"):
        torch.manual_seed(task["seed"])
        model, inputs = NETWORKS[name]()
        model.eval()
        notes.record["params"] = sum(p.numel() for p in model.parameters())
    best = reach(model, inputs, "l1", task, notes)
    with notes.stage("prune"):
        slim = sp.prune(model, best.plan)
    faults: dict[str, str] = {}
    with notes.stage("gate"):
        gate = sp.verify(model, slim, best.plan, inputs)
        measured = gate.record().to_data()
        notes.record["gate"] = {k: v for k, v in measured.items() if isinstance(v, dict)}
        notes.record["gate_passed"], notes.record["onnx"] = gate.passed, onnx_state(measured.get("onnx"))
        if not gate.passed:
            faults["gate"] = "; ".join(gate.reasons())
    for check in STEPS:
        with notes.stage(check.__name__):
            try:
                fault = check(model, slim, best.plan, inputs)
            except Exception as error:
                fault = error_line(error, 200)
            notes.record[check.__name__] = fault or "right"
            if fault and not fault.startswith("not compared"):
                faults[check.__name__] = fault
    notes.record["faults"] = faults
    notes.record["silent"] = bool(gate.passed and ("zeroed" in faults or "differs" in faults.get("reloaded", "")))
    return "passed" if not faults else "failed"


def onnx_state(comparison: Any) -> str:
    if not isinstance(comparison, dict):
        return str(comparison)
    return "passed" if comparison.get("passed") else str(comparison.get("detail") or "failed")[:200]


if __name__ == "__main__":
    serve({"outside": outside})
