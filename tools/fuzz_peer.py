"""One random network through torch-pruning, and what can be said of the result (part of tools/fuzz.py).

Half of every layer's channels go by L1 magnitude; the last layer's outputs stay. No two values of the dense network
are equal, so the values that are left tell which slices were removed. The network is *right* if its output is that
of the dense network with the removed filters and kernels set to zero, in float64.

torch-pruning gets what it gets for any network: no `num_heads`, no pruner of its own for a layer, no patched
forward. Where a block takes a statistic over its channels, zeroed channels count in it and removed ones do not: an
output that differs there is not called wrong, but unclear.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from structprune.modules import replace_tensors, tensors
from structprune.report import count_macs
from tests.random_checks import Wrong, stage
from tests.random_networks import Case

RATIO, TOLERANCE = 0.5, 1e-9
Kept = dict[str, list[np.ndarray]]  # for each parameter or buffer, the kept indices of each axis


class Refused(Exception):
    """torch-pruning left the network as it was."""


class Unclear(Exception):
    """The output differs, in a network with a statistic over channels."""


def check(case: Case) -> float:
    """The share of the MACs that torch-pruning cut, if its network is right; raises Wrong, Refused or Unclear.

    Other exceptions are its own, or those of a network that does not run, and carry their stage.
    """
    model, x = case.build()
    x = x.double()
    distinct(model)
    slim = copy.deepcopy(model)
    with stage("pruning"):
        prune(slim, x)
    kept = kept_indices(model, slim)
    if all([len(index) for index in kept[key]] == list(tensor.shape) for key, tensor in tensors(model).items()):
        raise Refused("nothing was removed")
    reference = zeroed(model, kept)
    for batch in (x, torch.cat([x, x.roll(1, -1)])):
        with torch.no_grad():
            expected = reference(batch)
            with stage("the slim network's forward"):
                made = slim(batch)
        if made.shape != expected.shape or not bool(made.isfinite().all()):
            raise Wrong("outputs", f"of shape {tuple(made.shape)}, or not finite")
        difference = float((made - expected).abs().max() / expected.abs().max())
        if difference > TOLERANCE:
            detail = f"relative difference {difference:.3g}"
            raise Unclear(detail) if case.statistic else Wrong("outputs", detail)
    return 1 - sum(count_macs(slim, x).values()) / sum(count_macs(model, x).values())


def distinct(model: nn.Module) -> None:
    """Makes every value of every parameter and buffer a different one, in float64."""
    new = {}
    for key, tensor in tensors(model).items():
        if tensor.is_floating_point():
            value = tensor.detach().double()
            value = value * (1 + 0.1 * torch.rand_like(value))
            new[key] = torch.where(value == 0, 0.1 * torch.randn_like(value), value)
    replace_tensors(model, new)


def prune(model: nn.Module, x: Tensor) -> None:
    """Prunes `model` in place, as torch-pruning does."""
    import torch_pruning as tp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            model,
            x,
            importance=tp.importance.GroupMagnitudeImportance(p=1),
            pruning_ratio=RATIO,
            global_pruning=False,
            ignored_layers=[model.fc2],
            in_channel_groups={},  # its default is one dict that every pruner fills and reads
            out_channel_groups={},
            num_heads={},
        )
        pruner.step()


def kept_indices(dense: nn.Module, slim: nn.Module) -> Kept:
    """Where each value of the slim network's tensors was in the dense one; raises Wrong if that is no slice."""
    result, small = {}, tensors(slim)
    for key, tensor in tensors(dense).items():
        if key not in small or small[key].dim() != tensor.dim():
            raise Wrong("tensors", f"{key} is gone or has another rank")
        if not tensor.is_floating_point():
            result[key] = [np.arange(size) for size in tensor.shape]
            continue
        full, left = tensor.detach().numpy(), small[key].detach().numpy()
        order = np.argsort(full, axis=None)
        place = np.minimum(np.searchsorted(full.ravel()[order], left.ravel()), full.size - 1)
        where = np.unravel_index(order[place], full.shape)
        result[key] = [np.unique(index) for index in where]
        if not np.array_equal(full[np.ix_(*result[key])], left):
            raise Wrong("tensors", f"{key} is no slice of the dense one")
    return result


def zeroed(dense: nn.Module, kept: Kept) -> nn.Module:
    """The dense network with its removed filters and kernels set to zero; vectors stay."""
    reference = copy.deepcopy(dense)
    new = {}
    for key, tensor in tensors(dense).items():
        if tensor.dim() > 1:
            mask = torch.zeros_like(tensor)
            mask[np.ix_(*kept[key])] = 1
            new[key] = tensor.detach() * mask
    replace_tensors(reference, new)
    return reference
