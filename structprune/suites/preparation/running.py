"""Prepares each network in a process of its own, whatever becomes of that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from ..beside_peer import THEIRS
from ..pool import Limits, Record, reason, run
from .records import DONE, WORKLOADS, Preparation, Settings

TASKS = "structprune.suites.preparation.tasks"
MEMORY = 10 * 2**30  # bytes that a process may hold
OTHERS = 6  # times as long as a run of torch-pruning may any other stage take


def prepare(name: str, settings: Settings) -> Preparation:
    """Times the preparation of a timm model with random weights.

    Args:
        name: Of the model.
        settings: How it is timed.

    Returns:
        What was measured. If torch-pruning ended the process, the others are timed without it.
    """
    record = _in_process(name, WORKLOADS, settings)
    if record.stage != THEIRS:
        return record
    others = _in_process(name, [workload for workload in WORKLOADS if workload != THEIRS], settings)
    return replace(others, errors={**others.errors, THEIRS: record.errors[THEIRS]})


def preparation_of(name: str, answer: Record) -> Preparation:
    """The record of a network.

    Args:
        name: Of the network.
        answer: What the pool says of its process, which may have ended early.

    Returns:
        The record, with the reason among its errors in that case.
    """
    errors, stage = answer.get("errors", {}), DONE
    if answer["status"] != DONE:
        stage = answer.get("stage", "start")
        errors = {**errors, stage: "timed out" if answer["status"] == "timeout" else reason(answer)}
    return Preparation(name, answer.get("nodes"), answer.get("budget"), errors, answer.get("turns", {}), stage)


def _in_process(name: str, workloads: Sequence[str], settings: Settings) -> Preparation:
    task = {
        **{"op": "prepare", "model": name, "workloads": list(workloads)},
        **{"repeats": settings.repeats, "attn_dim": settings.attn_dim},
    }
    seconds = {**dict.fromkeys(("build", *WORKLOADS), OTHERS * settings.timeout), THEIRS: settings.timeout}
    with closing(run(TASKS, [task], Limits(1, math.inf, MEMORY, stages=seconds))) as outcomes:
        _, answer = next(outcomes)
    return preparation_of(name, answer)
