"""Compares with other weights than the network's own, as those may hide a wrong cut.

A BatchNorm whose scale starts at zero switches a whole branch off; random weights don't.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..modules import replace_tensors, skeleton_copy, tensors
from ..ops import Inputs
from ..records import Plan
from .comparison import Comparison
from .masked_reference import cut, masked
from .running import attempt, compare_finest


def compare_random(
    comparison: Comparison, model: nn.Module, slim: nn.Module, plan: Plan, batches: list[Inputs]
) -> None:
    """Compares the slim network with the masked one, both with random weights.

    If random ones give no finite output, they are the dense network's own, disturbed.

    Args:
        comparison: Gets what comes of it.
        model: The dense network.
        slim: What `prune` made of it.
        plan: The plan.
        batches: Inputs; the first are used.
    """
    others = _with_others(model, plan, batches[0])
    if others is None:
        comparison.skip("the dense network gives no finite output with other weights")
        return
    (dense, weights), small = others, skeleton_copy(slim)
    replace_tensors(small, {key: cut(tensor, plan.keep.get(key, {})).contiguous() for key, tensor in weights.items()})
    compare_finest(comparison, masked(dense, plan), small, batches[:1])


def shows_cut(model: nn.Module, plan: Plan, batches: list[Inputs]) -> bool:
    """Whether outputs for these inputs tell the masked network from the dense one, with its own weights or with others.

    If they don't, as for an image of zeros in a network without biases, they can't tell a right cut from a wrong one.
    """
    if not plan.keep or any(_differs(model, plan, inputs) for inputs in batches):
        return True
    others = _with_others(model, plan, batches[-1])
    return others is not None and _differs(others[0], plan, batches[-1])


def _differs(model: nn.Module, plan: Plan, inputs: Inputs) -> bool:
    comparison = Comparison.of(torch.float64, proves=True)
    compare_finest(comparison, masked(model, plan), model, [inputs])
    return not comparison.passed


def _with_others(model: nn.Module, plan: Plan, inputs: Inputs) -> tuple[nn.Module, dict[str, Tensor]] | None:
    """The dense network with other weights, and these weights; None if none give finite outputs."""
    dense = skeleton_copy(model)
    infinite = _infinite(attempt(masked(model, plan), inputs))
    for make in (random_weights, disturbed_weights):
        weights = make(model)
        replace_tensors(dense, weights)
        if (results := attempt(masked(dense, plan), inputs)) is not None and _infinite(results) <= infinite:
            return dense, weights
    return None


def _infinite(results: list[Tensor] | None) -> int:
    """How many output values are not finite: some networks fill places with infinity."""
    return sum(int((~torch.isfinite(x)).sum()) for x in results or ())


def disturbed_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's own weights, each by up to a half larger, and 0.1 where they are zero: they keep their signs."""
    generator = torch.Generator().manual_seed(0)
    result = {}
    for key, tensor in tensors(model).items():
        if tensor.is_floating_point():
            own = tensor.detach().cpu().float()
            noise = 1 + 0.5 * torch.rand(tensor.shape, generator=generator)
            result[key] = torch.where(own == 0, torch.full_like(own, 0.1), own * noise).to(tensor)
    return result


def random_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of such a size that signals neither vanish nor explode; statistics stay positive."""
    generator = torch.Generator().manual_seed(0)
    result = {}
    for key, tensor in tensors(model).items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            fan_in = tensor[0].numel()
            values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * (2 / fan_in) ** 0.5
        elif key.endswith(("weight", "running_var")):
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
        else:
            values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.1
        result[key] = values.to(tensor)
    return result
