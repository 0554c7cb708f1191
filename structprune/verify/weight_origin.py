"""Checks whose weights a slim network has: the dense network's at the plan's places, trained ones, or wrong ones.

Surgery copies numbers, so what was cut and left alone is the dense network's bit for bit. What differs was trained
since, or the cut is wrong, and numbers alone do not tell which: a caller must say that it was trained. Then the gate
compares the slim network with the dense architecture that has the slim network's own weights at the plan's places,
which proves the surgery, but not where the weights are from. One fault still shows: training makes new numbers, so a
tensor whose numbers are all the dense network's, but not of the plan's places, was cut wrongly and not trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..modules import tensors
from ..records import Plan
from .gate_records import Weights as WeightsRecord
from .masked_reference import cut

_SPACING = 2.0**-22  # about the chance that a trained float32 number is bit for bit a certain one nearby
_BY_CHANCE = 1e-6  # that all of a tensor's new numbers are the dense network's: taken as impossible
_NAMED = 3


@dataclass
class Weights:
    """How a slim network's tensors differ from the dense network's at the plan's places.

    `trained` is what the caller said. `parameters` and `buffers` name those that differ, `moved` those
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
        """Why the gate can't pass, or an empty text. Buffers alone may be what a network records when it runs, so they
        count only if a comparison failed too."""
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
        """What a network that was trained was compared with; an empty text for others."""
        if not self.trained:
            return ""
        differing = [*self.parameters, *self.buffers]
        if not differing:
            return "nothing was trained since: the weights are those of the dense network at the plan's positions"
        return (
            f"compared with the dense network with the slim one's weights at the plan's positions, as {len(differing)} "
            f"of its {self.of} tensors were trained since the cut: that says nothing of what they were trained to"
        )

    def record(self) -> WeightsRecord:
        """What report.json says of them."""
        differing = len(self.parameters) + len(self.buffers)
        return WeightsRecord(trained=self.trained, differing=differing, of=self.of, detail=self.detail)


def weights_of(model: nn.Module, slim: nn.Module, plan: Plan, trained: bool) -> Weights:
    """Compares the tensors of both networks that have the same key and the shape that the plan leaves."""
    weights = Weights(trained, [], [], [], 0)
    own, names = tensors(slim), {name for name, _ in slim.named_parameters(remove_duplicate=False)}
    for key, tensor in tensors(model).items():
        own_tensor = own.get(key)
        if own_tensor is None or own_tensor.is_meta or tensor.is_meta:
            continue
        axes = plan.keep.get(key, {})
        expected = cut(tensor.detach(), axes).to("cpu", own_tensor.dtype)
        own_tensor = own_tensor.detach().cpu()
        if own_tensor.shape != expected.shape:
            continue
        weights.of += 1
        new = (own_tensor != expected) & ~((own_tensor != own_tensor) & (expected != expected))
        if not new.any():
            continue
        (weights.parameters if key in names else weights.buffers).append(key)
        if axes and _is_of(tensor.detach().cpu(), own_tensor[new]):
            weights.moved.append(key)
    return weights


def _is_of(dense: Tensor, numbers: Tensor) -> bool:
    """Whether all numbers are among those of a dense tensor, and not by chance, as few or coarse numbers may be, or any
    in a tensor that repeats itself. Zeros do not count, as training may make them."""
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
