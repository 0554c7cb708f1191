"""The result of comparing two networks' outputs: passed, failed, or not compared and why.

A difference is relative to *its own* scale, so that a column of 1e9 hides nothing beside it. An element lies in one
slice of the reference's output for each axis (its sample, its channel, its row); its scale is the largest magnitude in
that slice where this is smallest. Where that is near zero by cancellation, the difference is rounding, and the noise
of the computation sets the scale instead: how far the reference's own output moves when its weights and inputs are
rounded differently (`running.noise_of`), times `ROOM`.

Noise is no excuse without end: where rounding alone moves outputs so far that a wrong cut could hide behind it (choices
between equal numbers, jumps), the comparison proves nothing, and does not count (`share`).

Tolerances are those of the dtype that is computed in.

- float64, 1e-9: masked and slim sum the same products, the masked one with zeros between. Rounding differs by
  about 1e-16 a term and grows to 1e-12 at most in the deepest networks tried; a channel that is wrongly cut
  moves outputs by 1e-3 and more.
- float32, 1e-4: the same with a rounding of 6e-8 a term. It is also what ONNX, which fuses and reorders, is
  held to against PyTorch. Measured: 1e-7 to 1e-5.
- float16 and bfloat16, 4 eps (3.9e-3 and 3.1e-2): each activation is rounded to one eps, and a value that two ways of
  summing put on two sides of a boundary differs by one already; in deep networks the noise that is measured says
  how far that grows. They can't tell a small wrong cut from rounding: float64 copies of the same network do.
- reload, 1e-6: the same weights in the same modules, so every tensor is equal bit for bit (PyTorch may choose another
  kernel for differently aligned memory); 4 eps in half precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .gate_records import Comparison as ComparisonRecord

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 4 * 2.0**-10, "bfloat16": 4 * 2.0**-7, "reload": 1e-6}
ROOM = {"float64": 1000.0, "float32": 32.0}  # times the measured noise; 4 in half precision
_ROOM_OF_HALF = 4.0
# Of the largest magnitude of a tensor, the most that noise may excuse where a comparison is to prove something.
SHARE = {"float64": 1e-3, "float32": 1e-2}
_SHARE_OF_HALF = 0.25

State = Literal["passed", "failed", "not compared"]
Noise = Callable[[], list[Tensor]]


def tolerance_of(dtype: torch.dtype) -> float:
    """The relative difference that rounding may make in networks that compute in `dtype`."""
    return TOLERANCE.get(str(dtype).removeprefix("torch."), 4 * torch.finfo(dtype).eps)


def reload_tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE["reload"] if torch.finfo(dtype).eps < TOLERANCE["float32"] else tolerance_of(dtype)


@dataclass
class Comparison:
    """The largest absolute difference, and the largest relative to the scale of where it is.

    `state` is "not compared" until something has been; `passed` is true only if all of it was compared and is equal.
    `detail` says why it failed, what was not compared, or what differs in the dense network as well. `noise` is what
    rounding alone does to the reference, relative to the same scale, if that had to be measured; `dense` is what the
    dense network shows in the same comparison with its own file, if that was made. With `capped`, noise makes no scale
    larger than the largest magnitude of the whole output. With a `share`, for comparisons that are to prove something,
    what only noise of more than that share of it would excuse is not compared. `broken` says that something did not
    run, or made other shapes: no random numbers explain that. `worst` is `max_rel` of each output, and `left_out` says
    which inputs it was not given.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    tolerance: float = 0.0
    state: State = "not compared"
    detail: str = ""
    batches: list[int] = field(default_factory=list)
    noise: float | None = None
    room: float = ROOM["float64"]
    dense: float | None = None
    skipped: bool = False
    only_numbers: bool = True
    capped: bool = False
    eps: float = 2.0**-52
    share: float | None = None
    broken: bool = False
    worst: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, dtype: torch.dtype, tolerance: float | None = None, proves: bool = False) -> Comparison:
        """Makes a comparison that is still to be done.

        Args:
            dtype: what the networks compute in
            tolerance: in place of the dtype's
            proves: whether no finer comparison backs this one

        Returns:
            The comparison.
        """
        comparison = cls(share=0.0 if proves else None)
        comparison.hold_to(dtype)
        comparison.tolerance = comparison.tolerance if tolerance is None else tolerance
        return comparison

    def hold_to(self, dtype: torch.dtype) -> None:
        """Uses the tolerance of a dtype, and what goes with it.

        Args:
            dtype: what the networks compute in
        """
        self.tolerance, self.room, self.eps = tolerance_of(dtype), room_of(dtype), torch.finfo(dtype).eps
        if self.share is not None:
            self.share = SHARE.get(str(dtype).removeprefix("torch."), _SHARE_OF_HALF)

    @property
    def passed(self) -> bool:
        return self.state == "passed"

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    def fail(self, detail: str, numbers: bool = False, broken: bool = False) -> None:
        """Marks it as failed.

        Args:
            detail: what was found
            numbers: whether it failed only as numbers differ too much
            broken: whether no numbers could explain it
        """
        self.broken = self.broken or broken
        self.only_numbers = numbers and self.only_numbers
        if self.state != "failed":
            self.state, self.detail = "failed", detail

    def excuse(self, reason: str) -> None:
        """Marks it as passed though numbers differ.

        Args:
            reason: why
        """
        assert self.only_numbers
        self.state, self.detail = "passed", reason

    def skip(self, reason: str) -> None:
        """Marks it, or a part of it, as not comparable. What has failed stays failed.

        Args:
            reason: why
        """
        if self.state != "failed":
            self.state, self.detail = "not compared", f"not compared: {reason}"
            self.skipped = True

    def withdraw(self, reason: str) -> None:
        """Marks it as not compared.

        Args:
            reason: why its difference proves nothing
        """
        self.state, self.skipped, self.detail = "not compared", True, f"not compared: {reason}"

    def leave_out(self, text: str) -> None:
        """Notes inputs that were left out. It can pass without them.

        Args:
            text: which, and why
        """
        self.left_out.append(text)
        self.note(text)

    def note(self, text: str) -> None:
        """Adds a remark, unless it has failed.

        Args:
            text: the remark
        """
        if self.state != "failed" and text not in self.detail:
            self.detail = f"{self.detail}; {text}" if self.detail else text

    def add(
        self,
        reference: Sequence[Tensor],
        other: Sequence[Tensor],
        batch: int,
        noise: Noise | None = None,
        *,
        names: Sequence[str] = (),
        pooled: bool = False,
        nan: Noise | None = None,
    ) -> None:
        """Compares the tensors of one call with those of the other network's.

        Args:
            reference: the tensors of the dense network, or of what stands for it.
            other: the other network's, in the same order.
            batch: the batch size of the call.
            noise: makes, for each tensor, how far rounding alone moves each element; called only where needed.
            names: what the tensors are, where they are not the outputs.
            pooled: takes the noise of a whole tensor for that of each element (gradients, many of which are zero but
                for rounding).
            nan: makes the dense network's own outputs. NaN of both networks in the same places counts as equal
                where it has NaN in these places too.
        """
        if not reference:
            self.fail("the model returns no tensor that could be compared", broken=True)
            return
        if len(reference) != len(other):
            self.fail(f"{len(reference)} outputs against {len(other)}", broken=True)
            return
        compared, largest = False, max(map(_largest, reference))
        for i, (a, b) in enumerate(zip(reference, other, strict=True)):
            what = names[i] if names else "output" if len(reference) == 1 else f"output {i}"
            if a.shape != b.shape:
                shapes = f"{tuple(a.shape)} and {tuple(b.shape)} at batch {batch}"
                self.fail(f"{what} has shapes {shapes}" if names else f"output shapes {shapes}", broken=True)
                return
            if not a.numel():
                continue
            noise_of_one, dense_of_one = _one(noise, i), _one(nan, i)
            if not (a.is_floating_point() or a.is_complex()):
                compared = self._add_integers(a, b, batch, what, noise_of_one) or compared
            elif self._same_non_finite(a, b, batch, what, dense_of_one):
                compared = self._add_numbers(a, b, what, noise_of_one, pooled, largest) or compared
        if not compared and not self.failed:
            if any(a.numel() for a in reference):
                self.skip(f"no finite value at batch {batch}")
            else:
                self.note(f"every output is empty at batch {batch}: give inputs for which the network finds something")
            return
        self.batches.append(batch)
        if self.state == "not compared" and not self.skipped:
            self.state = "passed"

    def _same_non_finite(self, a: Tensor, b: Tensor, batch: int, what: str, nan: Callable[[], Tensor] | None) -> bool:
        """Whether infinities are the same in both, and NaN occurs only where the dense network has it too."""
        if bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all()):
            return True
        a, b = a.detach().cpu(), b.detach().cpu()
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        both = torch.isnan(a) & torch.isnan(b)
        other = ~(torch.isfinite(a) & torch.isfinite(b)) & (a != b) & ~both
        if other.any():
            self.fail(f"{what} is not finite in {int(other.sum())} places at batch {batch}, and not the same there")
            return False
        if both.any():
            dense = None if nan is None else nan().detach().cpu()
            dense = torch.view_as_real(dense) if dense is not None and dense.is_complex() else dense
            if dense is not None and not bool(torch.isnan(dense)[both].all()):
                self.fail(f"{what} is NaN in places where the dense network's is not, at batch {batch}")
                return False
            self.note(f"{what} is NaN in some places, the same in both")
        if torch.isinf(a).any():
            self.note(f"{what} is infinite in some places, the same in both")
        return True

    def _add_numbers(
        self, a: Tensor, b: Tensor, what: str, noise: Callable[[], Tensor] | None, pooled: bool, largest: float
    ) -> bool:
        a, b = wide(a), wide(b)
        finite = torch.isfinite(a) & torch.isfinite(b)
        if not finite.any():
            return False
        difference = torch.where(finite, a - b, 0).abs()
        magnitude = torch.where(finite, a, 0).abs()
        scale = own_scale(magnitude)
        free = relative = _ratio(difference, scale)
        if float(relative.max()) > self.tolerance and noise is not None:
            moved = torch.where(finite, wide(noise()), 0).abs()
            moved = torch.where(torch.isfinite(moved), moved, 0)
            coarse = self.room == _ROOM_OF_HALF  # a value that is moved may well round to itself
            moved = moved.max() if pooled or coarse else own_scale(moved)
            floor = moved * (self.room / self.tolerance)
            free = _ratio(difference, torch.maximum(scale, floor))
            scale = torch.maximum(scale, floor.clamp_max(self._most(float(magnitude.max()), largest)))
            relative = _ratio(difference, scale)
            self.noise = max(self.noise or 0.0, float(_ratio(moved.expand_as(scale), scale).max()))
        worst = float(relative.max())
        self.max_abs, self.max_rel = max(self.max_abs, float(difference.max())), max(self.max_rel, worst)
        self.worst[what] = max(self.worst.get(what, 0.0), worst)
        if worst > self.tolerance:
            place = "" if what == "output" else f" in {what}"
            message = f"relative difference {worst:.3g}{place} over {self.tolerance:.2g}"
            if self.share is not None and float(free.max()) <= self.tolerance:
                self.skip(f"{message}, but rounding alone may make as much{place}: with these inputs it proves nothing")
            else:
                self.fail(message, numbers=True)
        return True

    def _most(self, top: float, largest: float) -> float:
        """The largest scale that noise may make in a tensor whose largest magnitude is `top`, and `largest` in all of
        them. For one that is zero but for rounding, beside others, it is infinite."""
        if self.capped:
            return top
        if self.share is None or top <= self.eps**0.5 * largest:
            return math.inf
        return top * self.share / self.tolerance

    def _add_integers(self, a: Tensor, b: Tensor, batch: int, what: str, noise: Callable[[], Tensor] | None) -> bool:
        """Compares integers and booleans: equal, except for choices so close that rounding decides them (`argmax`)."""
        differ = a.cpu() != b.cpu()
        if not differ.any():
            return True
        close = int((noise() != 0).sum()) if noise is not None else 0
        message = f"{what}: {int(differ.sum())} of {differ.numel()} integers differ at batch {batch}"
        if int(differ.sum()) > 2 * close:
            self.max_rel = max(self.max_rel, float(differ.float().mean()))
            self.fail(message)
        elif self.share is not None and int(differ.sum()) > self.share * differ.numel():
            self.skip(f"{message}, but rounding alone changes {close}: with these inputs it proves nothing")
        else:
            self.note(f"{message}, and rounding alone changes {close}")
        return True

    def record(self) -> ComparisonRecord:
        """Gives what came of it.

        Returns:
            The record, as report.json holds it.
        """
        return ComparisonRecord.model_validate(self, from_attributes=True)


def _one(many: Noise | None, index: int) -> Callable[[], Tensor] | None:
    return None if many is None else lambda: many()[index]


def room_of(dtype: torch.dtype) -> float:
    return ROOM.get(str(dtype).removeprefix("torch."), _ROOM_OF_HALF)


def wide(x: Tensor) -> Tensor:
    x = x.detach().cpu()
    return x.to(torch.complex128) if x.is_complex() else x.double()


def _largest(x: Tensor) -> float:
    """The largest finite magnitude; 0 for integers."""
    if not x.numel() or not (x.is_floating_point() or x.is_complex()):
        return 0.0
    x = wide(x)
    return float(torch.where(torch.isfinite(x), x, 0).abs().max())


def own_scale(magnitude: Tensor) -> Tensor:
    """For each element the largest magnitude in the slice around it where that is smallest, one slice an axis."""
    if not magnitude.dim():
        return magnitude
    slices = [
        magnitude.amax([d for d in range(magnitude.dim()) if d != axis], keepdim=True)
        if magnitude.dim() > 1
        else magnitude
        for axis in range(magnitude.dim())
    ]
    scale = slices[0].expand_as(magnitude)
    for other in slices[1:]:
        scale = torch.minimum(scale, other)
    return scale


def _ratio(difference: Tensor, scale: Tensor) -> Tensor:
    """The relative difference; 0 where both are 0, and 1 where only the scale is 0."""
    return torch.where(
        scale > 0, difference / scale.clamp_min(torch.finfo(scale.dtype).tiny), (difference > 0).double()
    )
