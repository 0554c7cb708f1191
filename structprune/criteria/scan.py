"""How much each group hurts: the scan that Li et al. 2017 (section 3.2) choose their layers' ratios by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import argument_checks
from ..calibration import Batch, WritableNetwork, batches_for
from ..calibration.layout import channels_last
from ..calibration.random_inputs import random_batches
from ..calibration.rebatching import rebatched, thinned
from ..errors import RecipeError
from ..graph import DependencyGraph, Group
from ..memory_limits import LIMIT, allocation_failed
from ..messages import shown
from ..modules import evaluating
from ..ops import outputs
from ..process_state import memory_reused
from ..records import Scores, Sensitivity
from ..tasks.distance import divergence
from ..tasks.task import Task
from ..typing import Combination, CriterionName
from .collector import Collector
from .memory_bounds import SHOWN, kept_to
from .observation_sites import Site
from .reconstruction import refitted
from .registry import CriterionFunction, Unscored, criterion_of
from .results import Results, combination
from .views import Consumer

RATIOS = (0.125, 0.25, 0.5, 0.75)


SCAN = 96  # images of a recipe's calibration set that are enough to tell groups apart
RANDOM = 32  # random inputs that are enough for that


class NothingToScan(RecipeError):
    """No group of a network can be scanned, or none of its inputs tells what it loses."""


def scan_images(images: Tensor | Sequence[Batch], count: int = SCAN) -> Any:
    """Picks about `count` calibration images, evenly spread, as files may be sorted by class.

    Args:
        images: A tensor (n, ...), or batches.
        count: How many there should be.

    Returns:
        The same kind of data, with fewer images.
    """
    if isinstance(images, Tensor):
        return images[:: max(1, len(images) // count)]
    fewer = thinned(images, max(1, sum(batch.images for batch in images) // count))
    if len(fewer) == 1 < fewer[0].images:  # weights are fitted on one half, and the loss is taken on the other
        return rebatched(fewer, math.ceil(fewer[0].images / 2))
    return fewer


@argument_checks.checked(
    graph=argument_checks.instance(DependencyGraph, "what structprune.trace gives"),
    scores=argument_checks.instance(Scores, "what structprune.score gives"),
    ratios=argument_checks.several(
        argument_checks.number(above=0, most=1), "shares of a group's units, each over 0 and at most 1"
    ),
    task=argument_checks.optional(argument_checks.instance(Task, "a Task of structprune.tasks")),
    seed=argument_checks.whole(0, 2**31),
    draws=argument_checks.whole(2),
    memory=argument_checks.number(above=0),
    progress=argument_checks.function,
)
def sensitivity(
    graph: DependencyGraph,
    scores: Scores,
    data: Any = None,
    *,
    ratios: Sequence[float] = RATIOS,
    criterion: CriterionName | CriterionFunction | None = None,
    combine: Combination | None = None,
    task: Task | None = None,
    seed: int = 0,
    draws: int = RANDOM,
    memory: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> Sensitivity:
    """Prunes one group at a time by its lowest scores, and measures what that does to the network's outputs.

    Criteria that rank for the widths of a plan have no scores before there is one. With `criterion` such a one chooses
    the units of each group and ratio itself, on the dense network. For each group and ratio the consumers' weights are
    refitted by least squares on the dense network's activations, the removed channels' means are made up for, and the
    loss is the mean KL divergence in nats of the class probabilities from the dense network's (for other outputs, and
    where `task` says that they are no class scores, the squared error as a share of the output's variance). Weights are
    fitted on one half of the batches and the loss is taken on the other, both ways round. Groups without scores, those
    that no layer consumes, and those whose loss is no finite number are left out. Without data the network gets random
    inputs (see `random_batches`), and allocations weigh the losses together with the scores.

    Args:
        graph: what `trace` gives.
        scores: what `score` gives of it.
        data: calibration data (see `calibration.batches_of`), two batches or more; by default random inputs.
        ratios: the shares of a group's units that are removed.
        criterion: one that needs samples and widths alone, such as osscar, by which the units go; by default those of
            the lowest scores go.
        combine: how that criterion's scores of coupled layers are put together, as in `score`; by default its own way.
        task: how items become inputs; by default classification.
        seed: draws the samples that are looked at, and the random inputs.
        draws: how many random inputs there are, about.
        memory: bytes that may come on top of the network, the images and a forward pass; what is left out for it is in
            the result's `notes`.
        progress: is called with the share that is done.

    Returns:
        The losses of each group by the units that it keeps.

    Raises:
        RecipeError: fewer than two batches, no group that can be scanned, a criterion that needs something else, or
            nothing to combine, or no such way.

    Example:
        >>> images = torch.randn(64, 3, 16, 16)
        >>> scan = sp.sensitivity(graph, scores, images, ratios=[0.25, 0.5])
        >>> sorted(scan.losses["0"])
        [4, 6, 8]
    """
    results = _results(criterion, combine)
    collector = Collector(graph, seed, memory, task)
    batches = _random(collector, draws, seed) if data is None else batches_for(graph.model, data, task=task)
    with memory_reused():
        scan = _scanned(collector, batches, scores, ratios, results, progress)
    return scan if data is not None else dataclasses.replace(scan, inputs="random")


def _random(collector: Collector, draws: int, seed: int) -> list[Batch]:
    """Random inputs in batches, of as many samples as the example has where the network takes no others."""
    graph, refusal = collector.graph, ""
    for alike in (False, True):
        try:
            batches = [batch.beside(graph.model) for batch in random_batches(graph.inputs, draws, seed, alike)]
            collector.working.sweep(batches).finish()
            return batches
        except Exception as error:  # whatever the model's own code raises, or memory that is too small for a batch
            refusal = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    raise NothingToScan(
        f"the network does not run on random inputs as it does on those it was traced with ({refusal}): give "
        "calibration images, in a recipe by data.calibration"
    )


def _results(criterion: CriterionName | CriterionFunction | None, combine: Combination | None) -> Results | None:
    """What a criterion that chooses the units itself makes of a group; None where units go by their scores."""
    if criterion is None:
        if combine is not None:
            raise RecipeError("units go by their scores, which are put together already: leave combine out")
        return None
    chosen = criterion_of(criterion)
    if not chosen.ranks_consumed:
        raise RecipeError(
            f"criterion {chosen.name} can't choose the units of a scan: it needs "
            f"{' and '.join(sorted(chosen.needs)) or 'weights'}, and not samples and widths. Leave criterion out"
        )
    return Results(chosen, combination(chosen, combine), combine is not None)


def _scanned(
    collector: Collector,
    batches: Sequence[Batch],
    scores: Scores,
    ratios: Sequence[float],
    results: Results | None,
    progress: Callable[[float], None],
) -> Sensitivity:
    scan = _Scan(collector, batches, scores, ratios, results, collector.memory)
    groups = [group for group in collector.graph.groups if group.name in scores.values and collector.consumers(group)]
    if not groups:
        raise NothingToScan(
            "no group can be scanned: none has scores and a convolution or linear layer that consumes it"
        )
    losses = scan.all_losses(sorted(groups, key=collector.first), progress)
    finite = {name: curve for name, curve in losses.items() if all(map(math.isfinite, curve.values()))}
    if losses and not finite:
        raise NothingToScan("what the outputs lose is no finite number, whichever group is pruned: look at the outputs")
    notes = kept_to(collector.notes, collector.memory)
    if odd := [name for name in losses if name not in finite]:
        more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
        notes.append(f"the scan left out group {shown(odd[0])}{more}: what it loses is no finite number")
    return Sensitivity(finite, notes)


class _Scan:
    """The batches in two halves, what the dense network makes of them, and the sweep that shows its layers' inputs."""

    def __init__(
        self,
        collector: Collector,
        batches: Sequence[Batch],
        scores: Scores,
        ratios: Sequence[float],
        results: Results | None,
        memory: float,
    ) -> None:
        self.collector, self.scores, self.ratios, self.results = collector, scores, ratios, results
        if len(batches) < 2:
            images = sum(batch.images for batch in batches)
            raise RecipeError(f"{images} calibration images make one batch, and two are needed: give more images")
        working = collector.working
        batches = channels_last(working, batches, memory)
        self.dense = _outputs(working, batches, memory)
        if len(self.dense) < len(batches):
            collector.notes["the scan"] = f"looked at {len(self.dense)} of {len(batches)} batches"
            batches = batches[: len(self.dense)]
        self.images = sum(batch.images for batch in batches)
        self.halves = [list(range(len(batches) // 2)), list(range(len(batches) // 2, len(batches)))]
        self.sweep = working.sweep(batches, memory)

    def all_losses(self, groups: Sequence[Group], progress: Callable[[float], None]) -> dict[str, dict[int, float]]:
        """The losses of each group, in the order in which the network reaches them."""
        losses: dict[str, dict[int, float]] = {}
        for number, group in enumerate(groups):

            def at(share: float, number: int = number) -> None:
                progress((number + share) / len(groups))

            self.sweep.go(self.collector.first(group))
            try:
                measured = self.losses(group, at)
            except Exception as error:
                if not allocation_failed(error):
                    raise
                self.collector.notes[group.name] = "was left out of the scan, as there was no memory left"
            else:
                losses[group.name] = dict(sorted(measured.items()))
        return losses

    def losses(self, group: Group, progress: Callable[[float], None]) -> dict[int, float]:
        """What the outputs lose for each number of a group's units that stay."""
        losses = {group.units: 0.0}
        folds = self._folds(group)
        for turn, ratio in enumerate(self.ratios):
            progress(turn / len(self.ratios))
            lost = min(round(ratio * group.units / group.step), group.removable // group.step) * group.step
            kept = group.units - lost
            if kept not in losses:
                losses[kept] = sum(self._loss(group, consumers, kept, held) / 2 for consumers, held in folds)
        return losses

    def _folds(self, group: Group) -> list[tuple[list[tuple[Site, list[Consumer]]], list[int]]]:
        """A group's consumers with the windows of one half of the batches, and the numbers of the other half."""
        collector = self.collector
        samples = collector.samples(self.sweep, collector.sampled(group), self.images)
        split: dict[str, Any] = {"squares": 1.0, "together": False}
        if self.results is not None and self.results.criterion.squares:  # of all consumers at once, as where it scores
            split = {"squares": 1 / max(1, len(samples))}
        return [
            (
                [
                    (site, collector.blocks(site, torch.cat([parts[b] for b in fit]), **split))
                    for site, parts in samples
                ],
                held,
            )
            for fit, held in (self.halves, self.halves[::-1])
        ]

    def _loss(self, group: Group, consumers: list[tuple[Site, list[Consumer]]], kept: int, held: list[int]) -> float:
        """What the outputs of batches `held` lose when only the best `kept` units of a group stay; weights are put
        back."""
        collector, working = self.collector, self.collector.working
        stays = torch.zeros(group.units, dtype=torch.bool)
        stays[torch.from_numpy(group.chosen(self._values(group, consumers, kept), kept))] = True
        view = collector.view(group, 0)
        touched = collector.touched(view)
        before = {key: tensor.detach().clone() for key, tensor in working.state.items() if key in touched}
        mended = []
        try:
            for site, blocks in consumers:
                if len(collector.by_weight[site.layer.weight]) == 1:
                    collector.mended(view, blocks, stays, refitted, site.layer)
                    mended.append(site.layer.weight)
            collector.silence(view, stays, mended)
            slim = [outputs(result) for result in self.sweep.finish(held)]
        finally:
            for key, value in before.items():
                working.write(key, value)
        return divergence([self.dense[b] for b in held], slim, collector.task.scores_classes)

    def _values(self, group: Group, consumers: list[tuple[Site, list[Consumer]]], kept: int) -> Any:
        """Scores of a group's units, for a width."""
        blocks = tuple(block for _, own in consumers for block in own)
        if self.results is None or not blocks:
            return self.scores.values[group.name]
        view = self.collector.view(group, 0, consumers=blocks, kept=kept)
        try:
            return self.results.whole(view, self.results.call(view))
        except Unscored:  # so that it stays whole in the end
            return self.scores.values[group.name]


def _outputs(working: WritableNetwork, batches: Sequence[Batch], memory: float) -> list[list[Tensor]]:
    """The network's outputs of as many batches as fit into their share of the memory, two at least."""
    results: list[list[Tensor]] = []
    size = 0
    with evaluating(working.module):
        for batch in batches:
            tensors = outputs(batch.inputs.call(working.module))
            size += sum(x.numel() * x.element_size() for x in tensors)
            if size > memory * SHOWN and len(results) >= 2:
                break
            results.append(tensors)
    return results
