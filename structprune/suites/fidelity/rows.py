"""What is left of a network after each plan and recovery, without training."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from statistics import median
from typing import Any, Literal

import structprune as sp

from ...compare import peer
from ...criteria import CRITERIA, scan_images
from ...graph import DependencyGraph, Group
from ...plan import ALLOCATIONS
from ...plan.budget import Choice
from ...plan.merging import merge
from ...quality_judge import Quality
from ...records import Scores
from ...typing import Budget
from ..pool import Record
from .subjects import Subject

RECOVERIES: dict[str, list[Any]] = {
    "as cut": [],
    "means": ["means"],
    "batchnorm": ["batchnorm"],
    "scales": [{"method": "least_squares", "weights": "scales"}],
    "without means": ["least_squares"],
    "attention as cut": ["means", {"method": "least_squares", "attention": False}],
    "consumers alone": ["means", {"method": "least_squares", "fitted": "consumers", "shortcuts": False}],
    "without shortcuts": ["means", {"method": "least_squares", "shortcuts": False}],
    "least squares": ["means", "least_squares"],
    "temperature": ["means", "least_squares", "temperature"],
    "polish": ["means", "least_squares", "polish"],
}
OURS_FIRST = "l1"  # gives widths to criteria that rank layer by layer
Surgery = Literal["drop", "merge"]
SURGERIES: tuple[Surgery, ...] = ("drop", "merge")
THEIRS = "torch-pruning group-L1"


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        criteria: Names of criteria.
        allocations: Names of allocations.
        recoveries: Names of `RECOVERIES`.
        cuts: Dense MACs ÷ slim MACs; of a subject whose inner widths are cut, what these are divided by.
        align: Widths are multiples of this.
        surgeries: What becomes of channels that go: `drop`, `merge`.
    """

    criteria: Sequence[str]
    allocations: Sequence[str]
    recoveries: Sequence[str]
    cuts: Sequence[float]
    align: int = 1
    surgeries: Sequence[Surgery] = ("drop",)


@dataclass(frozen=True)
class Left:
    """What is left after one recovery.

    Attributes:
        quality: As the judge measured it.
        seconds: For the recovery and the measurement; None for torch-pruning's.
    """

    quality: Quality
    seconds: float | None = None

    def to_data(self) -> Record:
        return data_of(self.quality) | ({} if self.seconds is None else {"seconds": self.seconds})


@dataclass(frozen=True)
class Row:
    """One plan, with what is left.

    Attributes:
        criterion: Its criterion, or torch-pruning's.
        allocation: Its allocation.
        target: The MACs cut that was asked for.
        cut: The MACs cut of the slim network.
        results: What is left, by the name of the recovery.
        surgery: What became of the channels that went.
        seed: Of what is drawn.
    """

    criterion: str
    allocation: str
    target: float
    cut: float
    results: dict[str, Left]
    surgery: Surgery = "drop"
    seed: int = 0

    @property
    def plan(self) -> tuple[str, str, float, str]:
        """What was asked for, whatever is drawn."""
        return self.criterion, self.allocation, self.target, self.surgery

    def to_data(self) -> Record:
        return {
            **{"criterion": self.criterion, "allocation": self.allocation, "surgery": self.surgery},
            **{"asked": self.target, "cut": self.cut, "seed": self.seed},
            "results": {name: left.to_data() for name, left in self.results.items()},
        }


def data_of(quality: Quality) -> Record:
    """A quality by the name of its metric, with the KL divergence where it stands in for labels."""
    return {quality.metric: quality.value, **({} if quality.kl is None else {"kl": quality.kl})}


def medians(rows: Sequence[Row]) -> list[Row]:
    """One row for each plan: the medians over seeds of the quality and of the MACs cut.

    Args:
        rows: Those of all seeds.

    Returns:
        The rows of the first seed, with medians.
    """
    plans: dict[tuple[str, str, float, str], list[Row]] = {}
    for row in rows:
        plans.setdefault(row.plan, []).append(row)
    return [_median(members) for members in plans.values()]


def _median(rows: Sequence[Row]) -> Row:
    results = {}
    for name, left in rows[0].results.items():
        each = [row.results[name].quality for row in rows if name in row.results]
        likeness = {key: median(quality.likeness[key] for quality in each) for key in left.quality.likeness}
        value = median(quality.value for quality in each)
        results[name] = replace(left, quality=replace(left.quality, value=value, likeness=likeness))
    return replace(rows[0], cut=median(row.cut for row in rows), results=results)


def all_rows(subjects: Sequence[Subject], settings: Settings, with_peer: bool) -> Iterator[Row]:
    """The rows of all seeds, torch-pruning's last: it sees no calibration set.

    Args:
        subjects: One network, or one for each seed.
        settings: What is measured.
        with_peer: Whether torch-pruning is measured too.

    Yields:
        A row.
    """
    for subject in subjects:
        yield from our_rows(subject, settings)
    same = all(subject.inner for subject in subjects)  # which are trained once for all seeds
    for subject in subjects[: 1 if same else len(subjects)] if with_peer else ():
        yield from peer_rows(subject, settings)


def our_rows(subject: Subject, settings: Settings) -> Iterator[Row]:
    """structprune's rows: for each criterion, allocation and cut one.

    Args:
        subject: The network.
        settings: What is measured.

    Yields:
        A row, with a result for each recovery.
    """
    for (criterion, allocation, target, plan), surgery in _with_surgery(subject, settings):
        slim = sp.prune(subject.model, plan)
        results = {}
        for name in settings.recoveries:
            start, model = time.perf_counter(), slim
            if RECOVERIES[name]:
                steps = RECOVERIES[name]
                model = sp.recover(subject.model, slim, plan, subject.images, steps, seed=subject.seed).model
            quality = subject.judge(model)
            results[name] = Left(quality, time.perf_counter() - start)
        cut = plan.macs["dense"] / plan.macs["slim"]
        yield Row(criterion, allocation, target, cut, results, surgery, subject.seed)


def peer_rows(subject: Subject, settings: Settings) -> Iterator[Row]:
    """torch-pruning's rows: for each cut one, at the pruning ratio whose MACs come nearest, as cut.

    Args:
        subject: The network.
        settings: What is measured; criteria, allocations and recoveries are not torch-pruning's.

    Yields:
        A row; where torch-pruning fails, with the error and without results.
    """
    dense = peer.without_fused_attention(subject.model)
    macs = peer.total_macs(dense, subject.x)
    for target in settings.cuts:
        share, kinds = 1 / target, {"uniform": peer.Settings()}
        if subject.inner:
            graph = subject.trace()
            plan = _inner_plan(graph, sp.score(graph, OURS_FIRST), subject.inner, target)
            share = plan.macs["slim"] / plan.macs["dense"]
            kinds = {"uniform": peer.Settings(), _inner(target): peer.Settings(ignored=_other_layers(graph, subject))}
        for name, chosen in kinds.items():
            prune = functools.partial(peer.prune_by_ratio, settings=chosen, attn_dim=True)
            try:
                ratio = peer.search_ratio(dense, subject.x, round(macs * share), settings.align, prune)
                slim = prune(copy.deepcopy(dense), subject.x, ratio, settings.align).eval()
                cut, results = macs / peer.total_macs(slim, subject.x), {"as cut": Left(subject.judge(slim))}
            except Exception as error:  # whatever it raises, or a network that it broke
                yield Row(f"{THEIRS}: {type(error).__name__}", name, target, 1 / share, {}, seed=subject.seed)
                continue
            yield Row(THEIRS, name, target, cut, results, seed=subject.seed)


def _inner(factor: float) -> str:
    return f"inner widths ÷ {factor:g}"


def _is_inner(group: Group, globs: Sequence[str]) -> bool:
    return any(fnmatch(group.name, glob) for glob in globs)


def _inner_plan(graph: DependencyGraph, scores: Scores, globs: Sequence[str], factor: float) -> sp.Plan:
    """The plan that divides the widths of some groups by a factor, and keeps the others."""

    def divided(choices: Sequence[Choice], *_: Any) -> dict[str, int]:
        groups = [choice.group for choice in choices]
        return {
            group.name: max(1, round(group.units / factor)) if _is_inner(group, globs) else group.units
            for group in groups
        }

    return sp.plan(graph, scores, {"macs": 1.0}, allocation=divided, align=1)


def _other_layers(graph: DependencyGraph, subject: Subject) -> list[str]:
    """The paths of the layers that make the groups that stay, but for those that make inner ones too."""
    paths: dict[bool, set[str]] = {True: set(), False: set()}
    for group in graph.groups:
        filters = {piece.key.rpartition(".")[0] for piece in group.slices if piece.role == "filter"}
        paths[_is_inner(group, subject.inner)] |= filters
    return sorted(paths[False] - paths[True])


def _with_surgery(subject: Subject, settings: Settings) -> Iterator[tuple[tuple[str, str, float, sp.Plan], Surgery]]:
    """Each plan, with what becomes of the channels that go: as many stay in every layer."""
    graph = subject.trace()
    for criterion, allocation, cut, plan in _plans(subject, settings):
        for surgery in settings.surgeries:
            yield (criterion, allocation, cut, plan if surgery == "drop" else merge(graph, plan)), surgery


def _plans(subject: Subject, settings: Settings) -> Iterator[tuple[str, str, float, sp.Plan]]:
    """For each criterion, allocation and cut a plan. Scores and scans are made once for all cuts."""
    graph, images, seed = subject.trace(), subject.images, subject.seed
    scans = {}
    for name in settings.criteria if subject.inner else ():
        scores = sp.score(graph, name, images, seed=seed)
        for factor in settings.cuts:
            yield name, _inner(factor), factor, _inner_plan(graph, scores, subject.inner, factor)
    for name in () if subject.inner else settings.criteria:
        by = OURS_FIRST if "widths" in CRITERIA[name].needs else name
        scores = sp.score(graph, by, images, seed=seed)
        for allocation in settings.allocations:
            if "scan" in ALLOCATIONS[allocation].needs:
                own: Any = name if CRITERIA[name].ranks_consumed else None
                if (own or by) not in scans:
                    scans[own or by] = sp.sensitivity(graph, scores, scan_images(images), criterion=own, seed=seed)
                scores = replace(scores, sensitivity=scans[own or by])
            for cut in settings.cuts:
                budget: Budget = {"macs": 1 / cut}
                plan = sp.plan(graph, scores, budget, allocation=allocation, align=settings.align)
                if by != name:
                    again = sp.score(graph, name, images, widths=plan.widths, seed=seed)
                    again = replace(again, sensitivity=scores.sensitivity)
                    plan = sp.plan(graph, again, budget, allocation=allocation, align=settings.align)
                yield name, allocation, cut, plan
