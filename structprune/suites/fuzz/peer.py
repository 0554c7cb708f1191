"""One random network through torch-pruning, and what can be said of the result.

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

import torch
from torch import Tensor, nn

from ...compare.peer import distinct, kept_indices, zeroed
from ...errors import PlanError
from ...modules import tensors
from ...report import count_macs
from ..equality import Wrong
from ..random_networks import Case
from .stages import stage

RATIO, TOLERANCE = 0.5, 1e-9
SPREAD = 0.1  # by which values are made distinct


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
    distinct(model, SPREAD)
    slim = copy.deepcopy(model)
    with stage("pruning"):
        prune(slim, x)
    try:
        kept = kept_indices(model, slim)
    except PlanError as error:
        raise Wrong("tensors", str(error)) from error
    if all([len(index) for index in kept[key]] == list(tensor.shape) for key, tensor in tensors(model).items()):
        raise Refused("nothing was removed")
    reference = zeroed(model, kept)
    for batch in (x, torch.cat([x, x.roll(1, -1)])):
        with torch.no_grad():
            expected = reference(batch)
            with stage("the slim network's forward"):
                output = slim(batch)
        if output.shape != expected.shape or not bool(output.isfinite().all()):
            raise Wrong("outputs", f"of shape {tuple(output.shape)}, or not finite")
        difference = float((output - expected).abs().max() / expected.abs().max())
        if difference > TOLERANCE:
            detail = f"relative difference {difference:.3g}"
            raise Unclear(detail) if case.statistic else Wrong("outputs", detail)
    return 1 - sum(count_macs(slim, x).values()) / sum(count_macs(model, x).values())


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
