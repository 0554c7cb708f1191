"""Makes the channel graph of what the rules wrote down: settles which units go together, and forms groups of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from ..ops import Captured
from ..typing import Form
from .attributes import follow_attributes
from .candidate_groups import CandidateGroup, candidate_groups
from .channels import Place, Term
from .dependency import DependencyGraph
from .flow import Flow, Statistic
from .group import Group, Slice
from .units import Resolution
from .values import Value


def build_graph(
    model: nn.Module,
    form: Form,
    flow: Flow,
    parameters: Mapping[str, Value],
    recording: Captured,
    values: dict[str, Any],
) -> DependencyGraph:
    """The graph of a model from what the rules wrote down.

    Args:
        model: the traced model.
        form: what the slim network will be.
        flow: what the rules wrote down on all passes.
        parameters: the parameters and buffers by their keys.
        recording: the forward pass on the example inputs.
        values: what each node of that pass makes, by its name.
    """
    if flow.module_form:
        follow_attributes(flow, model, parameters)
    resolution = flow.units.resolve()
    shapes = {key: value.shape for key, value in parameters.items()}
    axes = {
        (key, dim): resolution.of(axis)
        for key, value in parameters.items()
        for dim, axis in enumerate(value.axes)
        if axis is not None
    }
    axes |= {place: resolution.of(axis) for place, axis in flow.blocked.items()}
    statistics = tuple(_of_classes(statistic, resolution) for statistic in flow.statistics)
    members, stays = candidate_groups(flow, resolution)
    first = len(flow.units.causes)
    resolution = resolution.freezing([(classes, first + i) for i, (classes, _) in enumerate(stays)])
    return DependencyGraph(
        model=model,
        form=form,
        groups=_groups(flow, resolution, members, statistics, axes),
        recording=recording,
        values=MappingProxyType(values),
        axes=MappingProxyType(axes),
        blocked=frozenset(flow.blocked),
        shapes=MappingProxyType(shapes),
        macs_terms=tuple(Term(c.constant, tuple(map(resolution.of, c.axes)), c.divisor, c.op) for c in flow.costs),
        params_terms=tuple(_parameter_term(key, shapes[key], axes) for key, _ in model.named_parameters()),
        statistics=statistics,
        attributes=tuple(replace(a, axis=resolution.of(a.axis)) for a in flow.attributes if a.axis is not None),
        expressions=tuple((e, resolution.of(axis)) for e, axis in flow.expressions if axis is not None),
        channel_axes=tuple(resolution.of(produced.axis) for produced in flow.produced),
        resolution=resolution,
        causes=(*flow.units.causes, *(cause for _, cause in stays)),
    )


def _of_classes(statistic: Statistic, resolution: Resolution) -> Statistic:
    """The same call, with axes of classes."""
    over = {place: {d: resolution.of(axis) for d, axis in axes.items()} for place, axes in statistic.over.items()}
    return replace(statistic, over=over)


def _parameter_term(key: str, shape: Sequence[int], axes: Mapping[Place, np.ndarray]) -> Term:
    """How many numbers a parameter has, as a function of the lengths of its axes."""
    constant, moving, divisor = 1, [], 1
    for dim, size in enumerate(shape):
        axis = axes.get((key, dim))
        if axis is None:
            constant *= size
        else:
            moving.append(axis)
            divisor *= len(axis) // size if size else 1
    return Term(constant, tuple(moving), divisor)


def _groups(
    flow: Flow,
    resolution: Resolution,
    members: Sequence[CandidateGroup],
    statistics: Sequence[Statistic],
    axes: Mapping[Place, np.ndarray],
) -> tuple[Group, ...]:
    """The groups of the candidates, with what each controls."""
    depths: dict[Place, int] = {}
    for produced in flow.produced:
        depths.setdefault((produced.key, produced.dim), produced.depth)
    reduced = [(axis, s.exact) for s in statistics for over in s.over.values() for axis in over.values()]
    changing = [resolution.of(axis) for axis in flow.changing]
    inexact = _touched(resolution, changing + [axis for axis, exact in reduced if not exact])
    in_training = _touched(resolution, [resolution.of(axis) for axis in flow.statistics_in_training])
    groups = []
    local = np.full(resolution.classes + 1, -1)
    floors_of_all = [(resolution.of(axis), least) for axis, least in flow.floors]
    floors_of_all += [(axis, 1) for axis, _ in reduced]
    for candidate, own in zip(members, _slices(flow, resolution, members, axes), strict=True):
        local[:] = -1
        local[candidate.ids] = np.arange(len(candidate.ids))
        floors = [(local[axis], least) for axis, least in floors_of_all]
        first = (candidate.leader.key, candidate.leader.dim)
        own.sort(key=lambda s: -1 if (s.key, s.dim) == first else depths.get((s.key, s.dim), 1 << 60))
        groups.append(
            Group(
                name=candidate.name,
                units=len(candidate.ids),
                channels=len(candidate.leader.axis),
                exact=not inexact[candidate.ids].any(),
                exact_in_training=not (inexact | in_training)[candidate.ids].any(),
                slices=tuple(own),
                floors=tuple(f for f in floors if (f[0] >= 0).any()),
                ids=candidate.ids,
                strata=candidate.strata,
                rates=candidate.rates,
            )
        )
    return tuple(groups)


def _touched(resolution: Resolution, axes: Sequence[np.ndarray]) -> np.ndarray:
    """Which classes stand on any of `axes`, and one False more."""
    touched = np.zeros(resolution.classes + 1, bool)
    for axis in axes:
        touched[axis] = True
    touched[-1] = False
    return touched


def _slices(
    flow: Flow, resolution: Resolution, members: Sequence[CandidateGroup], axes: Mapping[Place, np.ndarray]
) -> list[list[Slice]]:
    """What each candidate group controls of which parameter."""
    group_of = np.full(resolution.classes + 1, -1)
    local = np.full(resolution.classes + 1, -1)
    for number, candidate in enumerate(members):
        group_of[candidate.ids] = number
        local[candidate.ids] = np.arange(len(candidate.ids))
    slices: list[list[Slice]] = [[] for _ in members]
    for (key, dim), axis in axes.items():
        owners = group_of[axis]
        for number in sorted(set(owners[owners >= 0].tolist())):
            index = np.where(owners == number, local[axis], -1)
            index = index[:, (index >= 0).any(axis=0)]
            slices[number].append(Slice(key, dim, flow.roles.get((key, dim), "other"), index))
    return slices
