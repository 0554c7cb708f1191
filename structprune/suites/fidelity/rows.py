"""What is left of a network after each plan and recovery, without training."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import structprune as sp

from ...compare import peer
from ...criteria import CRITERIA, scan_images
from ...plan import ALLOCATIONS
from ...plan.merging import merge
from ...quality_judge import Quality
from ...typing import Budget
from ..pool import Record
from .subjects import Subject

RECOVERIES: dict[str, list[Any]] = {
    "as cut": [],
    "means": ["means"],
    "batchnorm": ["batchnorm"],
    "scales": [{"method": "least_squares", "weights": "scales"}],
    "least squares": ["means", "least_squares"],
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
        cuts: Dense MACs ÷ slim MACs.
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
    """

    criterion: str
    allocation: str
    target: float
    cut: float
    results: dict[str, Left]
    surgery: Surgery = "drop"

    def to_data(self) -> Record:
        return {
            **{"criterion": self.criterion, "allocation": self.allocation, "surgery": self.surgery},
            **{"asked": self.target, "cut": self.cut},
            "results": {name: left.to_data() for name, left in self.results.items()},
        }


def data_of(quality: Quality) -> Record:
    """A quality by the name of its metric, with the KL divergence where it stands in for labels."""
    return {quality.metric: quality.value, **({} if quality.kl is None else {"kl": quality.kl})}


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
        yield Row(criterion, allocation, target, plan.macs["dense"] / plan.macs["slim"], results, surgery)


def peer_rows(subject: Subject, settings: Settings) -> Iterator[Row]:
    """torch-pruning's rows: for each cut one, at the pruning ratio whose MACs come nearest, as cut.

    Args:
        subject: The network.
        settings: What is measured; criteria, allocations and recoveries are not torch-pruning's.

    Yields:
        A row.
    """
    dense = peer.total_macs(subject.model, subject.x)
    for target in settings.cuts:
        ratio = peer.search_ratio(subject.model, subject.x, round(dense / target), settings.align)
        slim = peer.prune_by_ratio(copy.deepcopy(subject.model), subject.x, ratio, settings.align).eval()
        cut = dense / peer.total_macs(slim, subject.x)
        yield Row(THEIRS, "uniform", target, cut, {"as cut": Left(subject.judge(slim))})


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
    for name in settings.criteria:
        by = OURS_FIRST if "widths" in CRITERIA[name].needs else name
        scores = sp.score(graph, by, images, seed=seed)
        for allocation in settings.allocations:
            if "scan" in ALLOCATIONS[allocation].needs:
                if by not in scans:
                    scans[by] = sp.sensitivity(graph, scores, scan_images(images), seed=seed)
                scores = replace(scores, sensitivity=scans[by])
            for cut in settings.cuts:
                budget: Budget = {"macs": 1 / cut}
                plan = sp.plan(graph, scores, budget, allocation=allocation, align=settings.align)
                if by != name:
                    again = sp.score(graph, name, images, widths=plan.widths, seed=seed)
                    again = replace(again, sensitivity=scores.sensitivity)
                    plan = sp.plan(graph, again, budget, allocation=allocation, align=settings.align)
                yield name, allocation, cut, plan
