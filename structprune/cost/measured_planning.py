"""Plans until the measured network is as fast as was asked.

A plan is made, its network exported and timed beside the dense one, and what the model says of slim networks is
corrected by what was found; then again, until the measurement is within the tolerance.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import BudgetError
from ..graph import DependencyGraph
from ..plan.budget import LATENCY, SPEEDUP
from ..plan_schema import Amounts, Latency, Round
from ..records import Plan
from ..runtimes import Benchmark, Runtime, benchmark
from ..runtimes.engine import Network
from ..surgery import prune
from ..typing import Budget
from .deadline import Deadline
from .model import CostModel

TOLERANCE = 0.03  # of the speed that was asked for
ROUNDS = 6
TIMED, RUNS = 6, 7  # rounds of a timing, and the fewest runs of a network in each
NARROW = 1.005  # corrections that are as near as this to each other give the same network
Tell = Callable[[Round], None]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Lead:
    """How many times as fast as the dense network, of the graph `reference`, one is that was cut from it."""

    reference: DependencyGraph
    factor: float = 1.0


def plan_measured(
    graph: DependencyGraph,
    budget: Budget,
    cost: CostModel,
    make: Callable[[CostModel], Plan],
    *,
    dense: str | Path | None = None,
    tolerance: float = TOLERANCE,
    rounds: int = ROUNDS,
    seconds: float = 4.0,
    deadline: Deadline | None = None,
    tell: Tell = lambda record: None,
    progress: Progress = lambda share: None,
    lead: Lead | None = None,
) -> Plan:
    """Plans, times and corrects the costs until a network is as fast as a budget of latency asks.

    Args:
        graph: The dependency graph of the dense network, or of one that was cut before.
        budget: With `speedup`, `latency_ms` or both, of the dense network.
        cost: What widths cost; networks are timed on its runtime.
        make: Gives a plan by corrected costs: `lambda cost: plan(graph, scores, budget, cost=cost)`.
        dense: The dense network's float32 ONNX file, if there is one.
        tolerance: How far from the speed asked a network may be, as a share of it.
        rounds: The most networks that are timed.
        seconds: Of timing, for each.
        deadline: When to stop.
        tell: Gets what each round planned and measured, as it stands in the plan's `latency["rounds"]`.
        progress: Gets the share that is done.
        lead: Of the network over the dense one, where it was cut before (see `lead_over_dense`).

    Returns:
        The plan whose network is no slower than asked, less `tolerance`; nor faster, plus `tolerance`, unless another
        budget asks for that. If no round comes so near, or the deadline comes first, the nearest, with a note; if it
        comes before the first round, the plan by `cost` as it is. `latency["correction"]` is what corrected the costs.

    Raises:
        BudgetError: No plan can meet the budget.
    """
    ahead, until, runtime = lead or Lead(graph), deadline or Deadline(), cost.runtime
    search = _Search(cast(Mapping[str, float], budget), tolerance, ahead.factor)
    with tempfile.TemporaryDirectory() as folder:
        beside = _reference(ahead.reference, runtime, dense, Path(folder) / "dense.onnx")
        while not search.exhausted and len(search.rounds) < rounds:
            if search.nearest is not None and until.over:
                search.reason = f"the {until.seconds:.0f} s for it were over"
                break
            progress(len(search.rounds) / rounds)
            plan = search.next_plan(make, cost)
            if plan is None:
                continue
            if until.over:
                if search.nearest is None:
                    return _untimed(plan, search, until)
                continue  # to the end: what was measured counts, and this plan was not
            slim = runtime.prepare(prune(graph.model, plan), graph.inputs, Path(folder) / "slim.onnx")
            timed = _timed(beside, slim, cost, ahead.factor, seconds, until, search.part_of(progress, rounds))
            if search.learn(plan, timed, cost.dense_ms * ahead.factor, tell):
                break
    return search.result()


def lead_over_dense(
    graph: DependencyGraph,
    reference: DependencyGraph,
    cost: CostModel,
    *,
    dense: str | Path | None = None,
    seconds: float = 4.0,
    deadline: Deadline | None = None,
) -> Lead:
    """Times a network that was cut before beside the dense one.

    Args:
        graph: The dependency graph of the network.
        reference: That of the dense one.
        cost: What widths of the network cost.
        dense: The dense network's float32 ONNX file, if there is one.
        seconds: Of timing.
        deadline: Of what time there is, timings of long runs take more.

    Returns:
        How far it is ahead of the dense network on the runtime of `cost`.
    """
    runtime, until = cost.runtime, deadline or Deadline()
    with tempfile.TemporaryDirectory() as folder:
        beside = _reference(reference, runtime, dense, Path(folder) / "dense.onnx")
        present = runtime.prepare(graph.model, graph.inputs, Path(folder) / "slim.onnx")
        timed = _timed(beside, present, cost, 1.0, seconds, until)
    return Lead(reference, timed.speedup["slim"])


def _timed(
    dense: Path | Network,
    slim: Path | Network,
    cost: CostModel,
    lead: float,
    seconds: float,
    until: Deadline,
    progress: Progress = lambda share: None,
) -> Benchmark:
    """The two networks side by side."""
    rounds = _rounds(cost.dense_ms * lead, seconds, until)
    options: dict[str, Any] = {"runtime": cost.runtime, "rounds": rounds, "seconds": seconds, "progress": progress}
    return benchmark({"dense": dense, "slim": slim}, **options)


class _Search:
    """Corrections of the costs that were tried, what their networks measured, and the plan nearest to the budget.

    `correction` is the next to try, unless the search is `exhausted`: nothing is left between those that were tried.
    """

    def __init__(self, budget: Mapping[str, float], tolerance: float, lead: float) -> None:
        self.budget, self.tolerance, self.lead = budget, tolerance, lead
        self.rounds: list[Round] = []  # what each planned and measured
        self.nearest: Plan | None = None
        self.distance = math.inf  # of the nearest from the goal, as a share of it; 0 where it will do
        self.correction, self.exhausted = 1.0, False
        self.reason = ""  # why the search ended where it did
        self._bracket = _Bracket()
        self._distances: dict[tuple[int, ...], float] = {}  # of the networks that were measured, by their widths

    def part_of(self, progress: Progress, rounds: int) -> Progress:
        """The progress of the present round as that of all."""
        number = len(self.rounds)
        return lambda share: progress((number + share) / rounds)

    def next_plan(self, make: Callable[[CostModel], Plan], cost: CostModel) -> Plan | None:
        """The plan by the costs as corrected now; None where there is none, or its network was measured before."""
        try:
            plan = make(cost.corrected(self.correction))
        except BudgetError as error:
            self.refuse(error)
            return None
        return None if self.knows(plan) else plan

    def refuse(self, error: BudgetError) -> None:
        """By the costs as corrected no plan meets the budget. Raises the error if that is so from the start."""
        if self.nearest is None:
            raise error
        self.reason = f"with costs as measured, {error}"
        self._go_on(math.inf, self.correction)

    def knows(self, plan: Plan) -> bool:
        """Whether the plan's network was measured before, so that its correction says nothing new; writes that down."""
        distance = self._distances.get(tuple(plan.widths.values()))
        if distance is None:
            _latency(plan)["correction"] = self.correction
            return False
        self._go_on(distance, self.correction)
        return True

    def learn(self, plan: Plan, timed: Benchmark, dense_ms: float, tell: Tell) -> bool:
        """Takes in what the plan's network was measured to be, and tells it. Returns whether it will do."""
        expected = self.lead * _latency(plan)["dense"] / _latency(plan)["slim"]
        measured = timed.speedup["slim"]
        goal = _goal(self.budget, timed)
        self.rounds.append(
            {"goal": goal, "predicted": expected, "measured": measured, "ci95": list(timed.ci95["slim"])}
        )
        tell(self.rounds[-1])
        off = self._distances[tuple(plan.widths.values())] = measured / goal - 1
        self.reason = ""
        if self.nearest is None or abs(off) < self.distance:
            self.nearest, self.distance = plan, abs(off)
        if abs(off) <= self.tolerance or (off > 0 and _others_bind(self.budget, plan)):
            self.nearest, self.distance = plan, 0.0
            return True
        # in milliseconds the machine's pace counts too, in the ratio it does not
        estimate = self.correction * expected / measured
        if LATENCY in self.budget and self.budget[LATENCY] < timed.ms["dense"] / self.budget.get(SPEEDUP, 1.0):
            estimate *= timed.ms["dense"] / dense_ms
        self._go_on(off, estimate)
        return False

    def _go_on(self, off: float, estimate: float) -> None:
        """To the next correction, after one whose network is `off` the goal."""
        following = self._bracket.after(self.correction, off, estimate)
        self.exhausted = following is None
        self.correction = self.correction if following is None else following

    def result(self) -> Plan:
        """The nearest plan, with a note where it is not near enough."""
        assert self.nearest is not None
        _latency(self.nearest)["rounds"] = self.rounds
        if self.distance:
            if not self.reason and self.exhausted and self._bracket.slow < self._bracket.fast:
                self.reason = "the widths' multiples allow nothing nearer"
            rounds = len(self.rounds)
            self.nearest.notes.append(
                f"asked for {self.rounds[-1]['goal']:.2f}×, and the nearest measured in {rounds} "
                f"round{'s' if rounds > 1 else ''} of planning is {100 * self.distance:.1f} % off it: "
                f"{self.reason or 'the timings vary too much, or more rounds are needed'}"
            )
        return self.nearest


def _latency(plan: Plan) -> Latency:
    assert plan.latency is not None  # it was made with costs
    return plan.latency


def _reference(graph: DependencyGraph, runtime: Runtime, dense: str | Path | None, path: Path) -> Path | Network:
    """The dense network as the runtime takes it."""
    if dense and runtime.files:
        return runtime.converted(Path(dense), target=path)
    return runtime.prepare(graph.model, graph.inputs, path)


def _untimed(plan: Plan, search: _Search, until: Deadline) -> Plan:
    """A plan that there was no time to measure."""
    _latency(plan)["rounds"] = []
    plan.notes.append(
        f"asked for {_asked(search.budget)}, and the network was not timed, as the {until.seconds:.0f} s for it "
        "were over before: give planning more seconds"
    )
    return plan


def _rounds(dense_ms: float, seconds: float, until: Deadline) -> int:
    """Rounds of timing dense and slim, of which each opens them anew: fewer where runs take long, as each has several
    runs whatever they take."""
    each = 2 * RUNS * dense_ms / 1e3
    return max(1, min(TIMED, int(max(seconds, min(until.left / 2, 60 * seconds)) / max(each, 1e-9))))


def _asked(budget: Mapping[str, float]) -> str:
    texts = [f"{budget[SPEEDUP]:.2f}×"] if SPEEDUP in budget else []
    return " and ".join([*texts, *([f"{budget[LATENCY]:g} ms"] if LATENCY in budget else [])])


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
        middle = estimate if self.slow < estimate < self.fast else math.sqrt(self.slow * self.fast)
        return middle if self.slow * NARROW < middle < self.fast / NARROW else None


def _goal(budget: Mapping[str, float], timed: Benchmark) -> float:
    """The speedup that the budgets of latency ask for, at the pace that the machine has now."""
    goals = [budget[SPEEDUP]] if SPEEDUP in budget else []
    goals += [timed.ms["dense"] / budget[LATENCY]] if LATENCY in budget else []
    return max(goals)


def _others_bind(budget: Mapping[str, float], plan: Plan) -> bool:
    """Whether a budget of another kind is used up, so that the network can't be wider."""
    units = sum(group["units"] for group in plan.groups.values())
    used: dict[str, Amounts] = {
        "macs": plan.macs,
        "params": plan.params,
        "channels": {"dense": units, "slim": sum(plan.widths.values())},
    }
    for name, counts in used.items():
        if name in budget:
            allowed = budget[name] * counts["dense"] if budget[name] <= 1 else budget[name]
            if counts["slim"] >= 0.98 * allowed:
                return True
    return False


def wants_latency(budget: Mapping[str, object]) -> bool:
    """Says whether a budget bounds a speed.

    Args:
        budget: Amounts by name.

    Returns:
        Whether `speedup` or `latency_ms` is among them.
    """
    return SPEEDUP in budget or LATENCY in budget
