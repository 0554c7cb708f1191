"""Why channels stay: the ops that keep them, and a reason for each axis of a parameter that can't be cut."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ..modules import walk
from .channels import ChannelGraph, Place
from .units import FIXED

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


def find_barriers(graph: ChannelGraph, reasons: Mapping[Place, str]) -> tuple[Barrier, ...]:
    """Each cause that keeps channels of a layer, and the layers whose channels stay though nothing froze them.

    `reasons` are those of `find_reasons`.
    """
    frozen_by: dict[int, list[np.ndarray]] = {}
    for classes, cause in graph.resolution.freezes:
        if cause != FIXED:
            frozen_by.setdefault(cause, []).append(classes)
    stays = np.append(graph.resolution.frozen, True)
    layers = _layers(graph)
    axes = [*graph.channel_axes, *(graph.axes[place] for place in layers if place in graph.axes)]
    # one channel stays anywhere; of a product, a position may still go by another factor
    axes_of_layers = [(axis, stays[axis].all(axis=1)) for axis in axes if len(axis) > 1]
    result = []
    for cause, frozen in frozen_by.items():
        kept = np.zeros(graph.classes + 1, bool)
        kept[np.concatenate(frozen)] = True
        channels = max((int((kept[axis].any(axis=1) & whole).sum()) for axis, whole in axes_of_layers), default=0)
        c = graph.causes[cause]
        if channels and c.barrier:
            result.append(Barrier(c.op, c.node, c.module, c.reason, channels, "/".join(c.line.split(os.sep)[-3:])))
    for place, path in layers.items():
        reason = reasons.get(place, "")
        if reason in (UNKNOWN, NOT_MADE):
            result.append(Barrier("", place[0], path, reason, len(graph.axes[place])))
    return tuple(result)


def find_reasons(graph: ChannelGraph) -> dict[Place, str]:
    """For each axis of a parameter or buffer of which positions stay, whatever is planned: why the first does."""
    cause_of, causes = np.full(graph.classes + 1, -1), graph.causes
    for barrier in (False, True):  # which tell more
        for classes, cause in reversed(graph.resolution.freezes):
            if cause != FIXED and causes[cause].barrier == barrier:
                cause_of[classes] = cause
    cause_of[-1] = -1
    fixed = np.zeros(graph.classes + 1, bool)
    for classes, cause in graph.resolution.freezes:
        fixed[classes] |= cause == FIXED
    of_layers = np.zeros(graph.classes + 1, bool)
    for axis in graph.channel_axes:
        of_layers[axis] = True
    parameters = graph.recording.parameters
    used = {parameters[n.name] for n in graph.recording.graph.nodes if n.users and n.name in parameters}
    result = {}
    for (key, dim), axis in graph.axes.items():
        stays = axis[~graph.in_group[axis].any(axis=1)]
        if not len(stays):
            continue
        known = cause_of[stays]
        if key not in used:
            result[key, dim] = "not used in this forward pass"
        elif len(axis) == 1:
            result[key, dim] = "its only position"
        elif (known >= 0).any(axis=1).all():
            result[key, dim] = causes[int(known[known >= 0][0])].reason
        elif fixed[stays].any(axis=1).all():
            result[key, dim] = WHOLE
        else:
            result[key, dim] = UNKNOWN if of_layers[stays].any() else NOT_MADE
    return result


def find_whole_layers(graph: ChannelGraph, reasons: Mapping[Place, str]) -> dict[str, str]:
    """The layers all of whose channels stay, whatever is planned, by their paths, and why (of `find_reasons`)."""
    layers = {}
    for place, path in _layers(graph).items():
        axis = graph.axes.get(place)
        if axis is not None and place in reasons and not graph.in_group[axis].any():
            layers[path] = reasons[place]
    return layers


def _layers(graph: ChannelGraph) -> dict[Place, str]:
    """The weights of layers with the axis along which they make channels, and the path of the layer."""
    layers: dict[Place, str] = {}
    for path, module in walk(graph.model):
        dim = 0
        if isinstance(module, nn.modules.conv._ConvNd):
            alone = module.groups > 1 and (f"{path}.weight".lstrip("."), 1) not in graph.blocked  # whole blocks go
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
        layers.update({(f"{path}.{name}".lstrip("."), dim): path for name in names})
    return layers
