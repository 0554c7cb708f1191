"""How far outputs are from the dense network's: changes too small to move a choice count."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def relative_square(x: Tensor, target: Tensor, *, least: float = 1e-12) -> Tensor:
    """The mean square of the difference, as a share of the target's variance, which counts as `least` or more."""
    target = target.float()
    return (x.float() - target).square().mean() / target.var(correction=0).clamp_min(least)


def divergence(dense: list[list[Tensor]], slim: list[list[Tensor]], scores: bool = True) -> float:
    """Mean KL divergence of class probabilities (images, classes) in nats, or a relative squared error.

    Args:
        dense: the dense network's output tensors, batch by batch.
        slim: the other network's.
        scores: whether a single output of two axes is class scores; one column is none, as it has no other class.
    """
    total = images = 0.0
    for ours, theirs in zip(dense, slim, strict=True):
        if scores and len(ours) == 1 and ours[0].dim() == 2 and ours[0].shape[1] > 1:
            a, b = ours[0].double().log_softmax(1), theirs[0].double().log_softmax(1)
            total += float(F.kl_div(b, a, log_target=True, reduction="sum"))
            images += len(a)
        else:
            pairs = zip(ours, theirs, strict=True)
            errors = [
                float((a.double() - b.double()).square().mean() / a.double().var().clamp_min(1e-12)) for a, b in pairs
            ]
            total, images = total + sum(errors) / len(errors), images + 1
    return total / images
