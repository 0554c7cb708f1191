"""Whose weights a slim network has: the dense network's at the plan's places, some trained since, or wrong ones.

Surgery copies numbers, so what was cut and left alone is the dense network's bit for bit. What differs was trained
since, or the cut is wrong, and numbers alone do not tell which: a caller must say that it was trained. Then the gate
holds the slim network against the dense architecture with the slim network's own weights at the plan's places, which
proves the surgery and not where the weights are from. One thing it still tells: training makes new numbers, so a
tensor whose numbers are all the dense network's, but not of the plan's places, was cut wrongly and not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..modules import tensors
from ..records import Plan
from .reference import cut

_SPACING = 2.0**-22  # about the chance that a trained float32 number is bit for bit a certain one nearby
_BY_CHANCE = 1e-6  # that all of a tensor's new numbers are the dense network's: taken as impossible
_NAMED = 3


@dataclass
class Weights:
    """How a slim network's tensors stand to the dense network's at the plan's places.

    `trained` is what the caller said of it. `parameters` and `buffers` name those that differ, `moved` those
    whose numbers are the dense network's of other places, `of` counts all that were looked at. `error` says why the
    dense architecture can't hold the slim network's weights.
    """

    trained: bool
    parameters: list[str]
    buffers: list[str]
    moved: list[str]
    of: int
    error: str = ""

    def reason(self, others_failed: bool) -> str:
        """Why the gate can't pass, or nothing. Buffers alone may be what a network notes when it runs, so that they
        count only where a comparison failed as well."""
        if self.error:
            return f"the dense network can't hold the slim network's weights: {self.error}"
        if self.moved:
            return (
                f"{_named(self.moved)} of the slim network {'holds' if len(self.moved) == 1 else 'hold'} numbers of "
                "the dense network, but not those at the plan's positions: it was cut by another plan, or wrongly"
            )
        if not self.trained and (self.parameters or (others_failed and self.buffers)):
            differing = _named([*self.parameters, *self.buffers])
            return (
                f"the slim network's weights are not those of the dense network at the plan's positions ({differing}): "
                "if it was trained or recovered since, pass trained=True"
            )
        return ""

    @property
    def detail(self) -> str:
        """What the comparisons were made with, for a network that was said to be trained; else nothing."""
        if not self.trained:
            return ""
        differing = [*self.parameters, *self.buffers]
        if not differing:
            return "nothing was trained since: the weights are those of the dense network at the plan's positions"
        return (
            f"compared with the dense network with the slim one's weights at the plan's positions, as {len(differing)} "
            f"of its {self.of} tensors were trained since the cut: that says nothing of what they were trained to"
        )

    def to_dict(self) -> dict[str, Any]:
        differing = len(self.parameters) + len(self.buffers)
        return {"trained": self.trained, "differing": differing, "of": self.of, "detail": self.detail}


def weights_of(model: nn.Module, slim: nn.Module, plan: Plan, trained: bool) -> Weights:
    """Compares the tensors of both, those of the same key and of the shape that the plan leaves."""
    found = Weights(trained, [], [], [], 0)
    own, names = tensors(slim), {name for name, _ in slim.named_parameters(remove_duplicate=False)}
    for key, tensor in tensors(model).items():
        held = own.get(key)
        if held is None or held.is_meta or tensor.is_meta:
            continue
        axes = plan.keep.get(key, {})
        expected = cut(tensor.detach(), axes).to("cpu", held.dtype)
        held = held.detach().cpu()
        if held.shape != expected.shape:
            continue
        found.of += 1
        new = (held != expected) & ~((held != held) & (expected != expected))
        if not new.any():
            continue
        (found.parameters if key in names else found.buffers).append(key)
        if axes and _is_of(tensor.detach().cpu(), held[new]):
            found.moved.append(key)
    return found


def _is_of(dense: Tensor, numbers: Tensor) -> bool:
    """Whether numbers are all among those of a dense tensor, and that is no chance: not for few or coarse ones, nor
    where the tensor repeats itself. Zero may come of training."""
    numbers = numbers[numbers != 0]
    if dense.dtype not in (torch.float32, torch.float64) or numbers.dtype != dense.dtype or not numbers.numel():
        return False
    if min(1.0, dense.numel() * _SPACING) ** numbers.numel() > _BY_CHANCE:
        return False
    if not torch.isin(numbers[:64], dense).all():
        return False
    return 2 * len(torch.unique(dense)) > dense.numel() and bool(torch.isin(numbers, dense).all())


def _named(keys: list[str]) -> str:
    more = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {more} more" if more > 0 else "")
