"""One network, pruned by both tools in all ways, and timed in turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

import structprune as sp

from ...compare.peer import total_macs
from ...cost import CostModel, learn_cost
from ..beside_peer import CUT, OURS, ROUNDINGS, THEIRS, prune_by_peer, share_kept
from ..efficiency import most_efficient
from ..pool import Record
from ..results import Failure, data_of
from ..timm_models import build, example
from .plans import Planner

LEVEL = 1.02  # times its speed, to be as fast
PEER = f"{THEIRS}, {ROUNDINGS[-1]}"
EFFICIENT, AT_ITS_SPEED, ALONE = (f"{OURS}, {what}" for what in ("most efficient", "at its speed", "speedup 2"))


@dataclass(frozen=True)
class Settings:
    """How long is measured, and how far is searched.

    Attributes:
        seconds: For the last timing of a network; each timing before takes a third.
        learn: For learning what its widths cost.
        tries: Moves of the search for efficiency.
    """

    seconds: float
    learn: float
    tries: int


@dataclass(frozen=True)
class Prepared:
    """A slim network before it is timed; `plan` and `gate` are structprune's alone."""

    network: nn.Module
    seconds: float
    plan: sp.Plan | None = None
    gate: bool | None = None


@dataclass(frozen=True)
class Row:
    """One slim network.

    Attributes:
        macs: Its MACs.
        cut: Dense MACs ÷ its MACs.
        kept: The share of outputs that stay, in the geometric mean over convolutions and linear layers.
        prepare_s: Seconds from the dense network to this one.
        speedup: As measured.
        ci95: The 95 % interval.
        efficiency: Speedup ÷ MACs cut.
        budget: Its plan's; None for torch-pruning's, as the next two.
        gate: Whether it passed the gate.
        notes: The plan's.
    """

    macs: int
    cut: float
    kept: float
    prepare_s: float
    speedup: float
    ci95: tuple[float, float]
    efficiency: float
    budget: dict[str, float] | None = None
    gate: bool | None = None
    notes: list[str] | None = None


@dataclass(frozen=True)
class Comparison:
    """One network under both tools.

    Attributes:
        model: Its name.
        macs: Its MACs.
        dense_ms: Milliseconds of its forward pass.
        cost_error: By what share the learned costs are off, in the median.
        learn_s: Seconds that learning them took.
        rows: The slim networks by what made them, or what that raised.
    """

    model: str
    macs: int
    dense_ms: float
    cost_error: float
    learn_s: float
    rows: dict[str, Row | Failure]

    def to_data(self) -> Record:
        return {**vars(self), "rows": {name: _data_of(row) for name, row in self.rows.items()}}


def _data_of(row: Row | Failure) -> Record:
    """A row in a file; its plan's budget is called `asked` there."""
    if isinstance(row, Failure):
        return {"error": row.error}
    return {{"budget": "asked"}.get(key, key): value for key, value in data_of(row).items()}


def compare(name: str, settings: Settings) -> Comparison:
    """Prunes and times a timm model with random weights.

    Args:
        name: Of the model.
        settings: How long is measured.

    Returns:
        What was measured. What a tool raises is a row.
    """
    model = build(name, "cpu", seed=0)
    x = example(model, "cpu", seed=0)
    start = time.perf_counter()
    graph = sp.trace(model, x)
    cost = learn_cost(graph, seconds=settings.learn)
    return compare_by(cost, time.perf_counter() - start, name, model, x, settings)


def compare_by(
    cost: CostModel, learn_s: float, name: str, model: nn.Module, x: Tensor, settings: Settings
) -> Comparison:
    """Prunes and times a network whose costs are learned.

    Args:
        cost: What its widths cost.
        learn_s: Seconds that learning them took.
        name: What the record calls the network.
        model: The dense network.
        x: A batch of images.
        settings: How long is measured.

    Returns:
        What was measured. What a tool raises is a row.
    """
    with tempfile.TemporaryDirectory() as place:
        contest = Contest(name, model, x, Path(place))
        for align in ROUNDINGS:
            contest.enter(f"{THEIRS}, {align}" if align > 1 else THEIRS, partial(_by_peer, model, x, align))
        graph = sp.trace(model, x)
        folder, short = contest.folder, settings.seconds / 3
        planner = Planner(model, x, graph, sp.score(graph, "l1"), cost, folder, short)
        for row, make in _ways(contest, planner, short, settings.tries).items():
            contest.enter(row, partial(_by_plan, model, x, make))
        timed = sp.benchmark(contest.files, seconds=settings.seconds, rounds=10)
    macs = total_macs(model, x)
    rows: dict[str, Row | Failure] = {}
    for row, entry in contest.entries.items():
        if isinstance(entry, Failure):
            rows[row] = entry
            continue
        slim, speedup, plan = total_macs(entry.network, x), timed.speedup[row], entry.plan
        rows[row] = Row(
            macs=slim,
            cut=macs / slim,
            kept=share_kept(model, entry.network),
            prepare_s=entry.seconds,
            speedup=speedup,
            ci95=timed.ci95[row],
            efficiency=speedup * slim / macs,
            budget=None if plan is None else dict(plan.budget),
            gate=entry.gate,
            notes=None if plan is None else list(plan.notes),
        )
    return Comparison(name, macs, timed.ms["dense"], cost.error, learn_s, rows)


class Contest:
    """The slim networks of one network, each with its ONNX file in a folder.

    Args:
        name: Of the network.
        model: The dense network.
        x: A batch of images.
        folder: For the files.
    """

    def __init__(self, name: str, model: nn.Module, x: Tensor, folder: Path) -> None:
        self.name, self.x, self.folder = name, x, folder
        self.entries: dict[str, Prepared | Failure] = {}
        self.files = {"dense": sp.export_onnx(model, x, folder / "dense.onnx")}

    def enter(self, row: str, prepare: Callable[[], Prepared]) -> None:
        """Adds a slim network, or what making it raised."""
        try:
            entry = prepare()
            self.files[row] = sp.export_onnx(entry.network, self.x, self.folder / f"{len(self.files)}.onnx")
            self.entries[row] = entry
        except Exception as error:  # what a tool raises is part of the comparison, whatever it is
            self.entries[row] = Failure.of(self.name, error)


def _by_peer(model: nn.Module, x: Tensor, align: int) -> Prepared:
    start = time.perf_counter()
    return Prepared(prune_by_peer(model, x, align), time.perf_counter() - start)


def _by_plan(model: nn.Module, x: Tensor, make: Callable[[], sp.Plan]) -> Prepared:
    start = time.perf_counter()
    plan = make()
    slim = sp.prune(model, plan)
    gate = sp.verify(model, slim, plan, x).passed
    return Prepared(slim, time.perf_counter() - start, plan, gate)


def _ways(contest: Contest, planner: Planner, seconds: float, tries: int) -> dict[str, Callable[[], sp.Plan]]:
    """What makes structprune's plans; two of them are held against torch-pruning's network, if there is one."""
    ways: dict[str, Callable[[], sp.Plan]] = {}
    peer, speedup = contest.entries[PEER], 0.0
    if isinstance(peer, Failure):
        ways[OURS] = lambda: planner.not_slower(0.0, 0.0)
    else:
        files = {row: contest.files[row] for row in ("dense", PEER)}
        speedup = sp.benchmark(files, seconds=seconds).speedup[PEER]
        cut = total_macs(planner.model, planner.x) / total_macs(peer.network, planner.x)
        search = most_efficient(planner.model, share_kept(planner.model, peer.network), tries)
        ways[OURS] = lambda: planner.not_slower(speedup, cut)
        ways[EFFICIENT] = lambda: planner.plan({"macs": CUT, "speedup": 1.01}, sharing=search)
    if speedup > 1:
        ways[AT_ITS_SPEED] = lambda: planner.measured({"speedup": LEVEL * speedup})
    ways[ALONE] = lambda: planner.measured({"speedup": 2.0})
    return ways
