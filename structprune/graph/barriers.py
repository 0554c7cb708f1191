"""Why channels stay: the ops that keep them, and a reason for each axis of a parameter that can't be cut."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ..modules import walk
from .units import FIXED

if TYPE_CHECKING:
    from .dependency import DependencyGraph

UNKNOWN = "for a reason that was not noted"
WHOLE = "part of a block that stays whole"
NOT_MADE = "no layer makes these channels"


@dataclass(frozen=True)
class Barrier:
    """A node that keeps the channels which enter it, and why. `channels` counts those kept because of it.

    `line` is the line of code, the end of its path and its number, that called the op.
    """

    op: str
    node: str
    module: str
    reason: str
    channels: int
    line: str = ""


def barriers(graph: DependencyGraph) -> list[Barrier]:
    """Each cause that keeps channels of a layer, and the layers whose channels stay though nothing froze them."""
    causes = graph.flow.units.causes
    frozen_by: dict[int, list[np.ndarray]] = {}
    for classes, cause in graph.resolved.freezes:
        if cause != FIXED:
            frozen_by.setdefault(cause, []).append(classes)
    stays = np.append(graph.resolved.frozen, True)
    layers = _layers(graph)
    axes = [graph.classes_of(p.axis) for p in graph.flow.produced]
    axes += [graph.parameter_axes[place] for place in layers if place in graph.parameter_axes]
    # one channel stays anywhere; of a product, a position may still go by another factor
    made = [(axis, stays[axis].all(axis=1)) for axis in axes if len(axis) > 1]
    found = []
    for cause, frozen in frozen_by.items():
        kept = np.zeros(graph.classes + 1, bool)
        kept[np.concatenate(frozen)] = True
        channels = max((int((kept[axis].any(axis=1) & whole).sum()) for axis, whole in made), default=0)
        c = causes[cause]
        if channels and c.barrier:
            found.append(Barrier(c.op, c.node, c.module, c.reason, channels, "/".join(c.line.split(os.sep)[-3:])))
    for place, path in layers.items():
        reason = graph.reasons.get(place, "")
        if reason in (UNKNOWN, NOT_MADE):
            found.append(Barrier("", place[0], path, reason, len(graph.parameter_axes[place])))
    return found


def reasons(graph: DependencyGraph) -> dict[tuple[str, int], str]:
    """For each axis of a parameter or buffer of which positions stay, whatever is planned: why the first does."""
    cause_of, causes = np.full(graph.classes + 1, -1), graph.flow.units.causes
    for barrier in (False, True):  # which tell more
        for classes, cause in reversed(graph.resolved.freezes):
            if cause != FIXED and causes[cause].barrier == barrier:
                cause_of[classes] = cause
    cause_of[-1] = -1
    fixed = np.zeros(graph.classes + 1, bool)
    for classes, cause in graph.resolved.freezes:
        fixed[classes] |= cause == FIXED
    made = np.zeros(graph.classes + 1, bool)
    for produced in graph.flow.produced:
        made[graph.classes_of(produced.axis)] = True
    parameters = graph.captured.parameters
    used = {parameters[n.name] for n in graph.captured.graph.nodes if n.users and n.name in parameters}
    found = {}
    for (key, dim), axis in graph.parameter_axes.items():
        stays = axis[~graph.grouped[axis].any(axis=1)]
        if not len(stays):
            continue
        known = cause_of[stays]
        if key not in used:
            found[key, dim] = "not used in this forward pass"
        elif len(axis) == 1:
            found[key, dim] = "its only position"
        elif (known >= 0).any(axis=1).all():
            found[key, dim] = causes[int(known[known >= 0][0])].reason
        elif fixed[stays].any(axis=1).all():
            found[key, dim] = WHOLE
        else:
            found[key, dim] = UNKNOWN if made[stays].any() else NOT_MADE
    return found


def whole_layers(graph: DependencyGraph) -> dict[str, str]:
    """The layers all of whose channels stay, whatever is planned, by their paths, and why."""
    found = {}
    for place, path in _layers(graph).items():
        axis = graph.parameter_axes.get(place)
        if axis is not None and place in graph.reasons and not graph.grouped[axis].any():
            found[path] = graph.reasons[place]
    return found


def _layers(graph: DependencyGraph) -> dict[tuple[str, int], str]:
    """The weights of layers with the axis along which they make channels, and the path of the layer."""
    found: dict[tuple[str, int], str] = {}
    for path, module in walk(graph.model):
        dim = 0
        if isinstance(module, nn.modules.conv._ConvNd):
            alone = module.groups > 1 and graph.blocked(f"{path}.weight".lstrip("."), 1) is None  # whole blocks go
            dim = int(module.transposed and not alone)
        elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            dim = 1
        elif not isinstance(module, (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase)):
            continue
        names = ["weight"]
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            names = [name for name in module._parameters if name.startswith("weight_ih")]
        if is_parametrized(module, "weight"):
            originals = dict(module.named_parameters()).items()
            names = [name for name, p in originals if name.startswith("parametrizations.weight.") and p.dim() > dim]
        found.update({(f"{path}.{name}".lstrip("."), dim): path for name in names})
    return found
