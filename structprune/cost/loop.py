"""Plans until the measured network is as fast as was asked.

A plan is made, its network exported and timed beside the dense one, and what the model says of slim networks is
corrected by what was found; then again, until the measurement is within the tolerance.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bench import benchmark
from ..errors import BudgetError
from ..export import export_onnx
from ..graph import DependencyGraph
from ..plan.budget import LATENCY, SPEEDUP
from ..records import Plan
from ..surgery import prune
from .model import CostModel

TOLERANCE = 0.03  # of the speed that was asked for
ROUNDS = 6
Tell = Callable[[dict[str, Any]], None]


def plan_measured(
    graph: DependencyGraph,
    budget: Mapping[str, float],
    cost: CostModel,
    make: Callable[[CostModel], Plan],
    *,
    dense: str | Path | None = None,
    tolerance: float = TOLERANCE,
    rounds: int = ROUNDS,
    seconds: float = 4.0,
    tell: Tell = lambda told: None,
) -> Plan:
    """The plan by `make(cost)` whose network, timed beside the dense one, is as fast as the budget of latency asks.

    `make` is called with ever better corrected costs: `lambda cost: plan(graph, scores, budget, cost=cost)`. `budget`
    has `speedup`, `latency_ms` or both. `dense` is the dense network's float32 ONNX file, if there is one. What each
    round planned and measured is told to `tell` and kept in the plan's `latency["rounds"]`; `latency["correction"]` is
    what the plan's costs were corrected by. The network is no slower than asked, less `tolerance`; nor faster, plus
    `tolerance`, unless another budget asks for that. If no round comes so near, the nearest is returned, with a note.
    Raises BudgetError where no plan can meet the budget.
    """
    goals = [budget[SPEEDUP]] if SPEEDUP in budget else []
    goals += [cost.dense_ms / budget[LATENCY]] if LATENCY in budget else []
    goal = max(goals)
    told: list[dict[str, Any]] = []
    best: tuple[float, Plan] | None = None
    correction = 1.0
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "dense.onnx"
        if dense:
            shutil.copyfile(dense, reference)
        else:
            export_onnx(graph.model, graph.inputs, reference)
        reference = cost.runtime.converted(reference)
        for number in range(rounds):
            try:
                made = make(cost.corrected(correction))
            except BudgetError as error:
                if best is None:
                    raise BudgetError(
                        f"{error} (as measured after {number} rounds)" if number else str(error)
                    ) from None
                break
            path = export_onnx(prune(graph.model, made), graph.inputs, Path(folder) / "slim.onnx")
            path = cost.runtime.converted(path)
            timed = benchmark(
                {"dense": reference, "slim": path},
                batch=cost.runtime.batch,
                threads=cost.runtime.threads,
                seconds=seconds,
                rounds=6,
            )
            assert made.latency is not None
            made.latency["correction"] = correction
            measured, low, high = timed.speedup["slim"], *timed.ci95["slim"]
            expected = made.latency["dense"] / made.latency["slim"]
            told.append({"goal": goal, "predicted": expected, "measured": measured, "ci95": [low, high]})
            tell(told[-1])
            off = measured / goal - 1
            bound = expected <= goal * (1 + tolerance)  # or another budget makes it faster
            if best is None or abs(off) < best[0]:
                best = (abs(off), made)
            if abs(off) <= tolerance or (off > 0 and not bound):
                best = (0.0, made)
                break
            correction *= expected / measured
    assert best is not None
    distance, found = best
    found.latency = {**(found.latency or {}), "rounds": told}
    if distance:
        found.notes.append(
            f"asked for {goal:.2f}×, and the nearest measured in {len(told)} round{'s' if len(told) > 1 else ''} of "
            f"planning is {100 * distance:.1f} % off it: the widths' steps are too coarse, or the timings vary too much"
        )
    return found


def wants_latency(budget: Mapping[str, float]) -> bool:
    return SPEEDUP in budget or LATENCY in budget
