"""`score`: runs a criterion over the groups of a graph, on the data that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..argument_checks import checked, function, instance, mapping, number, optional, whole
from ..calibration import Batch, Spread, Sweep, batches_for
from ..errors import ModelError, RecipeError
from ..graph import DependencyGraph, Group
from ..memory_limits import LIMIT, allocation_failed
from ..records import Scores
from ..tasks.task import Task
from ..typing import Combination, CriterionName
from .collector import Collector
from .memory_bounds import kept_to, portions
from .observation_sites import Layer, Seen, Site, flat
from .registry import DATA, NEEDS, Criterion, CriterionFunction, Unscored, criterion_of
from .results import Results, combination
from .views import Activation, Consumer, GroupView


@checked(
    graph=instance(DependencyGraph, "what structprune.trace gives"),
    labels=optional(instance(Tensor, "a tensor of labels")),
    task=optional(instance(Task, "a Task of structprune.tasks")),
    widths=optional(mapping(whole(1), "how many units each group keeps, by its name: plan(...).widths")),
    seed=whole(0, 2**31),
    memory=number(above=0),
    progress=function,
)
def score(
    graph: DependencyGraph,
    criterion: CriterionName | str | CriterionFunction,
    data: Any = None,
    *,
    labels: Tensor | None = None,
    task: Task | None = None,
    combine: Combination | None = None,
    widths: Mapping[str, int] | None = None,
    seed: int = 0,
    memory: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> Scores:
    """Scores every unit of every group: low scores go first.

    A group that the criterion can't score (slimming on channels without a BatchNorm) is left out; `unscored` of the
    result says why, and plans keep it whole.

    Args:
        graph: what `trace` gives.
        criterion: a registered name, code (`file.py:Name`), or a function from a `GroupView` to a tensor of shape
            (units,) or to a list of such, one for each coupled layer.
        data: calibration data for those that need it (see `calibration.batches_of`).
        labels: where data is a tensor of images.
        task: has the loss for gradients, and says how items become inputs and targets; by default classification.
        combine: how coupled layers' scores are put together: leading, sum, mean, max or normalised.
        widths: how many units each group will keep, for criteria that rank layer by layer on the already pruned
            network: `plan(...).widths` of a first plan.
        seed: draws the samples that are looked at.
        memory: bytes that may come on top of the network, the images and a pass; `notes` tells what was left out
        progress: is called with the share that is done.

    Returns:
        Scores, by groups, and what is to be known of them.

    Raises:
        RecipeError: an unknown name, a need that is not met, or scores of a wrong shape.
        ModelError: weights or scores are not finite, or memory ran out.

    Example:
        >>> (scores := sp.score(graph, "l1")).values["0"].shape
        (8,)
    """
    chosen = criterion_of(criterion)
    how = _combining(chosen, data, widths, combine)
    run = _Run(graph, chosen, how, combine is not None, widths, seed, progress, memory, task)
    batches = batches_for(graph.model, data, labels, task) if chosen.needs_data else []
    try:
        return run.scores(batches)
    except Exception as error:
        if not allocation_failed(error):
            raise
        raise ModelError(
            f"there is no memory left to score by {chosen.name}: give fewer images, in smaller batches (a list of "
            "tensors)"
        ) from error


def _combining(chosen: Criterion, data: Any, widths: Mapping[str, int] | None, combine: str | None) -> str | None:
    """How layers' scores are put together. Raises RecipeError for an unknown way, and for needs that are not met."""
    if chosen.needs_data and data is None:
        raise RecipeError(f"criterion {chosen.name} needs {_needs(chosen)}: give data=, for example a tensor of images")
    if "widths" in chosen.needs and widths is None:
        raise RecipeError(
            f"criterion {chosen.name} works for the widths of a plan: give widths=plan(...).widths of a plan made with "
            "other scores, such as l1"
        )
    return combination(chosen, combine)


def unscorable(graph: DependencyGraph, criterion: str | CriterionFunction) -> dict[str, str]:
    """Finds the groups that a criterion leaves out, as is known before it runs: plans keep them whole.

    Args:
        graph: The dependency graph of the dense network.
        criterion: Its name or function.

    Returns:
        The reason for each such group, by the group's name.

    Raises:
        RecipeError: There is no criterion of this name.
    """
    run = _Run(graph, criterion_of(criterion), None, False, None, 0, lambda share: None)
    for group in graph.groups:
        run.can(group)
    return run.unscored


def _needs(criterion: Criterion) -> str:
    return " and ".join(dict.fromkeys(NEEDS[need] for need in sorted(criterion.needs & DATA)))


class _Run:
    """One criterion over one graph."""

    def __init__(
        self,
        graph: DependencyGraph,
        criterion: Criterion,
        how: str | None,
        combines: bool,
        widths: Mapping[str, int] | None,
        seed: int,
        progress: Callable[[float], None],
        memory: float = LIMIT,
        task: Task | None = None,
    ) -> None:
        self.graph, self.criterion, self.results = graph, criterion, Results(criterion, how, combines)
        self.widths, self.progress = widths, progress
        self.collector = Collector(graph, seed, memory, task)
        if not self.results.own:
            self.collector.copy()  # it may write to what it is shown
        self.number = {group.name: i for i, group in enumerate(graph.groups)}
        self.values: dict[str, Any] = {}
        self.unscored: dict[str, str] = {}

    def scores(self, batches: Sequence[Batch]) -> Scores:
        groups = [group for group in self.graph.groups if self.can(group)]
        if self.criterion.sequential:
            self._in_turn(groups, batches)
        elif self.criterion.by_batch:
            self._by_batch(groups, batches)
        else:
            moments = self._moments(groups, batches) if "moments" in self.criterion.needs else {}
            for place, group in enumerate(groups):
                self.progress(place / len(groups))
                expectations = self.collector.expected(group) if "expected" in self.criterion.needs else ()
                view = self._view(group, activations=moments.get(group.name, expectations))
                with self._or_unscored(group):
                    self.values[group.name] = self.results.whole(view, self.results.call(view))
        if not self.values and self.graph.groups:
            raise ModelError(
                f"criterion {self.criterion.name} can score none of the {len(self.graph.groups)} groups: "
                f"{next(iter(self.unscored.values()))}. Choose another (see `structprune criteria`)"
            )
        widths = None
        if "widths" in self.criterion.needs and self.widths is not None:
            widths = {name: int(self.widths[name]) for name in self.values}
        return Scores(self.criterion.name, self.values, self.unscored, self._notes(), widths)

    @contextmanager
    def _or_unscored(self, group: Group) -> Iterator[None]:
        """Leaves a group out that can't be scored, or for which there is no memory left."""
        try:
            yield
        except Unscored as reason:
            self.unscored[group.name] = str(reason)
        except Exception as error:
            if not allocation_failed(error):
                raise
            self.values.pop(group.name, None)
            self.unscored[group.name] = "there was no memory left to score it"

    def can(self, group: Group) -> bool:
        needs, reason = self.criterion.needs, ""
        if "bn" in needs and not self.collector.norms(group):
            reason = "no BatchNorm scales its channels"
        elif "samples" in needs and not self.collector.sampled(group):
            reason = "no convolution or linear layer consumes its channels"
        elif needs & {"activations", "moments"} and not self.collector.sites(group):
            reason = "no convolution or linear layer makes or consumes its channels"
        elif (
            self.criterion.by_batch and "activations" not in needs and not any(s.role == "filter" for s in group.slices)
        ):
            reason = "no layer's filters make its channels"
        if reason:
            self.unscored[group.name] = reason
        return not reason

    def _view(self, group: Group, **parts: Any) -> GroupView:
        if "bn" in self.criterion.needs:
            parts["norms"] = self.collector.norms(group)
        if self.widths is not None and "widths" in self.criterion.needs:
            if group.name not in self.widths:
                raise RecipeError(f"widths has no entry for group {group.name}: give those of a plan of the same graph")
            if self.widths[group.name] > group.units:
                raise RecipeError(
                    f"widths has {self.widths[group.name]} for group {group.name} of {group.units} units: give those "
                    "of a plan of the same graph"
                )
            parts["kept"] = int(self.widths[group.name])
        return self.collector.view(group, self.number[group.name], **parts)

    # --- with data ----------------------------------------------------------------------------------------

    def _by_batch(self, groups: list[Group], batches: Sequence[Batch]) -> None:
        gradients = "gradients" in self.criterion.needs
        has_activations = "activations" in self.criterion.needs
        sites = {group.name: self.collector.maps(group) if has_activations else [] for group in groups}
        sums: dict[str, Tensor] = {}
        images = 0
        every = [s for own in sites.values() for s in own]
        for place, full_batch in enumerate(batches):
            self.progress(place / len(batches))
            for batch in portions(full_batch, self.collector.at_once(every, gradients)) if every else [full_batch]:
                recording: Seen = self.collector.run(batch, every, gradients)
                images += batch.images
                for group in [group for group in groups if group.name not in self.unscored]:
                    with self._or_unscored(group):
                        view = self._view(
                            group,
                            gradients=recording.gradients,
                            activations=self.collector.activations(sites[group.name], recording, gradients),
                        )
                        members = self.results.members(view, self.results.call(view)) * batch.images
                        sums[group.name] = members + sums.get(group.name, 0)
        for group in [group for group in groups if group.name not in self.unscored]:
            with self._or_unscored(group):
                self.values[group.name] = self.results.combined(self._view(group), sums[group.name] / images)

    def _moments(self, groups: list[Group], batches: Sequence[Batch]) -> dict[str, tuple[Activation, ...]]:
        """Mean and variance of each channel over all images and places, in one pass."""
        sites = {group.name: self.collector.sites(group) for group in groups}
        every = {s.key: s for own in sites.values() for s in own}
        spreads = {key: Spread() for key in every}
        for place, batch in enumerate(batches):
            self.progress(place / len(batches))
            self.collector.watch(
                batch,
                list(every.values()),
                lambda site, value: spreads[site.key].add(flat(value, site.axis).transpose(0, 1)),
            )

        def moments(site: Site) -> Activation:
            spread = spreads[site.key]
            return Activation(
                site.layer.module, site.index, site.weight, mean=spread.mean(), variance=spread.variance()
            )

        return {name: tuple(moments(site) for site in own) for name, own in sites.items()}

    # --- layer by layer -----------------------------------------------------------------------------------

    def _in_turn(self, groups: list[Group], batches: Sequence[Batch]) -> None:
        """Ranks each group on the network without what goes of the groups before it."""
        assert self.widths is not None
        if not batches:
            for group in groups:
                view = self._view(group)
                self.values[group.name] = self.results.whole(view, self.results.call(view))
                self._remove(group, view, [])
            return
        sweep = self.collector.working.sweep(batches, self.collector.memory)
        images = sum(batch.images for batch in batches)
        order = sorted(groups, key=self.collector.first)
        for place, group in enumerate(order):
            self.progress(place / len(order))
            sweep.go(self.collector.first(group))
            with self._or_unscored(group):
                self._rank(group, sweep, images)
        if sweep.anew:
            self.collector.notes["the network"] = f"ran anew for each group on {sweep.anew} of {len(batches)} batches"

    def _rank(self, group: Group, sweep: Sweep, images: int) -> None:
        """Ranks a group by what its consumers read from where the sweep stands on, and takes out what goes."""
        samples = self.collector.samples(sweep, self.collector.sampled(group), images)
        share = self.criterion.squares / len(samples)
        consumers = []
        for site, parts in samples:
            consumers.append((site.layer, self.collector.blocks(site, torch.cat(parts), share)))
            parts.clear()  # windows take much memory, and are not needed twice
        view = self._view(group, consumers=tuple(block for _, blocks in consumers for block in blocks))
        self.values[group.name] = self.results.whole(view, self.results.call(view))
        self._remove(group, view, consumers)

    def _remove(self, group: Group, view: GroupView, consumers: Sequence[tuple[Layer, list[Consumer]]]) -> None:
        """Takes the units that will go out of the working network: their kernels become zero, the others are mended."""
        assert self.widths is not None
        kept = torch.zeros(group.units, dtype=torch.bool)
        chosen = group.chosen(self.values[group.name], int(self.widths[group.name]))
        kept[torch.from_numpy(chosen)] = True
        if kept.all():
            return
        mended = []
        if self.criterion.mend is not None:
            for layer, blocks in consumers:
                if len(self.collector.by_weight[layer.weight]) == 1:
                    self.collector.mended(view, blocks, kept, self.criterion.mend, layer)
                    mended.append(layer.weight)
        self.collector.silence(view, kept, mended)

    def _notes(self) -> list[str]:
        notes = kept_to(self.collector.notes, self.collector.memory)
        for reason in dict.fromkeys(self.unscored.values()):
            names = [name for name, cause in self.unscored.items() if cause == reason]
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            notes.append(f"{some} can't be scored by {self.criterion.name} and stay whole: {reason}")
        if self.criterion.name == "slimming":
            norms = [norm for group in self.graph.groups for norm in self.collector.norms(group)]
            scales = torch.cat([norm.scale.abs() for norm in norms]) if norms else torch.zeros(1)
            small = float((scales < 0.01 * scales.mean()).double().mean())
            if small < 0.05:
                notes.append(
                    f"the BatchNorm scales are not sparse ({100 * small:.1f} % are under a hundredth of their mean): "
                    "slimming ranks networks that were trained with an L1 penalty on them, which this one was not"
                )
        return notes
