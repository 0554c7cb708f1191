"""Plans until the measured network is as fast as was asked.

A plan is made, its network exported and timed beside the dense one, and what the model says of slim networks is
corrected by what was found; then again, until the measurement is within the tolerance.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bench import Benchmark, benchmark
from ..errors import BudgetError
from ..graph import DependencyGraph
from ..plan.budget import LATENCY, SPEEDUP
from ..records import Plan
from ..surgery import prune
from .deadline import Deadline
from .model import CostModel

TOLERANCE = 0.03  # of the speed that was asked for
ROUNDS = 6
TIMED, RUNS = 6, 7  # rounds of a timing, and the fewest runs of a network in each
NARROW = 1.005  # corrections that are as near as this to each other give the same network
Tell = Callable[[dict[str, Any]], None]
Progress = Callable[[float], None]


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
    deadline: Deadline | None = None,
    tell: Tell = lambda told: None,
    progress: Progress = lambda share: None,
) -> Plan:
    """The plan by `make(cost)` whose network, timed beside the dense one, is as fast as the budget of latency asks.

    `make` is called with ever better corrected costs: `lambda cost: plan(graph, scores, budget, cost=cost)`. `budget`
    has `speedup`, `latency_ms` or both. `dense` is the dense network's float32 ONNX file, if there is one. Networks are
    timed on the costs' own runtime. What each round planned and measured is told to `tell` and kept in the plan's
    `latency["rounds"]`; `latency["correction"]` is what the plan's costs were corrected by. The network is no slower
    than asked, less `tolerance`; nor faster, plus `tolerance`, unless another budget asks for that. If no round comes
    so near, or the `deadline` comes first, the nearest is returned, with a note; if it comes before the first round,
    the plan by the costs as they are.
    Raises BudgetError where no plan can meet the budget.
    """
    until = deadline or Deadline()
    told: list[dict[str, Any]] = []
    best: tuple[float, Plan] | None = None
    distances: dict[tuple[int, ...], float] = {}  # of the networks that were measured
    bracket, reason = _Bracket(), ""
    correction: float | None = 1.0
    with tempfile.TemporaryDirectory() as folder:
        runtime, reference = cost.runtime, Path(folder) / "dense.onnx"
        held = (
            runtime.converted(Path(dense), target=reference)
            if dense and runtime.files
            else runtime.prepare(graph.model, graph.inputs, reference)
        )
        while correction is not None and len(told) < rounds:
            if best is not None and until.over:
                reason = f"the {until.seconds:.0f} s for it were over"
                break
            progress(len(told) / rounds)
            try:
                made = make(cost.corrected(correction))
            except BudgetError as error:
                if best is None:
                    raise
                reason = f"with costs as measured, {error}"
                correction = bracket.after(correction, math.inf, correction)
                continue
            widths = tuple(made.widths.values())
            if widths in distances:
                correction = bracket.after(correction, distances[widths], correction)
                continue
            assert made.latency is not None
            made.latency["correction"] = correction
            if until.over:
                made.latency["rounds"] = []
                made.notes.append(
                    f"asked for {_asked(budget)}, and the network was not timed, as the {until.seconds:.0f} s for it "
                    "were over before: give planning more seconds"
                )
                return made
            slim = runtime.prepare(prune(graph.model, made), graph.inputs, Path(folder) / "slim.onnx")
            timed = benchmark(
                {"dense": held, "slim": slim},
                runtime=runtime,
                seconds=seconds,
                rounds=_rounds(cost, seconds, until),
                progress=lambda share: progress((len(told) + share) / rounds),
            )
            expected, measured = made.latency["dense"] / made.latency["slim"], timed.speedup["slim"]
            goal = _goal(budget, timed)
            told.append({"goal": goal, "predicted": expected, "measured": measured, "ci95": list(timed.ci95["slim"])})
            tell(told[-1])
            off = distances[widths] = measured / goal - 1
            reason = ""
            if best is None or abs(off) < best[0]:
                best = (abs(off), made)
            if abs(off) <= tolerance or (off > 0 and _others_bind(budget, made)):
                best = (0.0, made)
                break
            # in milliseconds the machine's pace counts too, in the ratio it does not
            estimate = correction * expected / measured
            if LATENCY in budget and budget[LATENCY] < timed.ms["dense"] / budget.get(SPEEDUP, 1.0):
                estimate *= timed.ms["dense"] / cost.dense_ms
            correction = bracket.after(correction, off, estimate)
    assert best is not None
    distance, found = best
    assert found.latency is not None
    found.latency["rounds"] = told
    if distance:
        if not reason and correction is None and bracket.slow < bracket.fast:
            reason = "the widths' steps allow nothing nearer"
        found.notes.append(
            f"asked for {told[-1]['goal']:.2f}×, and the nearest measured in {len(told)} "
            f"round{'s' if len(told) > 1 else ''} of planning is {100 * distance:.1f} % off it: "
            f"{reason or 'the timings vary too much, or more rounds are needed'}"
        )
    return found


def _rounds(cost: CostModel, seconds: float, until: Deadline) -> int:
    """Rounds of timing dense and slim, of which each opens them anew: fewer where runs take long, as each has several
    runs whatever they take."""
    each = 2 * RUNS * cost.dense_ms / 1e3
    return max(1, min(TIMED, int(max(seconds, min(until.left / 2, 60 * seconds)) / max(each, 1e-9))))


def _asked(budget: Mapping[str, float]) -> str:
    wanted = [f"{budget[SPEEDUP]:.2f}×"] if SPEEDUP in budget else []
    return " and ".join([*wanted, *([f"{budget[LATENCY]:g} ms"] if LATENCY in budget else [])])


class _Bracket:
    """What costs have been corrected by: where networks came out too slow, and where too fast or there was no plan."""

    def __init__(self) -> None:
        self.slow, self.fast = 0.0, math.inf

    def after(self, tried: float, off: float, estimate: float) -> float | None:
        """The next correction: as estimated, or else half way between the two; None where nothing is between."""
        if off < 0:
            self.slow = max(self.slow, tried)
        else:
            self.fast = min(self.fast, tried)
        found = estimate if self.slow < estimate < self.fast else math.sqrt(self.slow * self.fast)
        return found if self.slow * NARROW < found < self.fast / NARROW else None


def _goal(budget: Mapping[str, float], timed: Benchmark) -> float:
    """The speedup that the budgets of latency ask for, at the pace that the machine has now."""
    goals = [budget[SPEEDUP]] if SPEEDUP in budget else []
    goals += [timed.ms["dense"] / budget[LATENCY]] if LATENCY in budget else []
    return max(goals)


def _others_bind(budget: Mapping[str, float], plan: Plan) -> bool:
    """Whether a budget of another kind is used up, so that the network can't be wider."""
    units = sum(group["units"] for group in plan.groups.values())
    used = {"macs": plan.macs, "params": plan.params, "channels": {"dense": units, "slim": sum(plan.widths.values())}}
    for name, counts in used.items():
        if name in budget:
            allowed = budget[name] * counts["dense"] if budget[name] <= 1 else budget[name]
            if counts["slim"] >= 0.98 * allowed:
                return True
    return False


def wants_latency(budget: Mapping[str, float]) -> bool:
    return SPEEDUP in budget or LATENCY in budget
