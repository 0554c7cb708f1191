"""Which products of attention have heads with fewer channels, and which of the dense heads and channels those are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..calibration import WritableNetwork
from ..graph.attention import Heads, Product, Unfit, attention_of
from ..records import Plan


@dataclass(eq=False)
class HeadTask:
    """A product whose heads lost channels.

    Attributes:
        dense: the product in the dense network.
        slim: the same in the slim one.
        values: whether it weighs values; else it multiplies queries and keys.
        heads: which dense head each slim head is.
        kept: the channels of each that stayed, shape (slim heads, kept).
        sides: which of its two layers can change.
        left: second moments of queries, or of what attention makes of values, for each fold and dense head.
        right: the same of keys.
        sums: of what attention makes of values.
        rows: how many there were, for each fold and dense head.
    """

    dense: Product
    slim: Product
    values: bool
    heads: np.ndarray
    kept: np.ndarray
    sides: tuple[bool, bool]
    left: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)

    def mean(self) -> Tensor:
        """The mean of what attention makes of values, shape (dense heads, width)."""
        return torch.stack(self.sums).sum(0) / torch.stack(self.rows).sum(0).unsqueeze(1)


def kept_of(plan: Plan, key: str, dim: int, size: int) -> np.ndarray:
    """The kept indices of an axis of a parameter, all of them where none goes."""
    kept = plan.keep.get(key, {}).get(str(dim))
    return np.arange(size) if kept is None else np.asarray(kept)


def head_tasks(dense: WritableNetwork, slim: WritableNetwork, plan: Plan) -> Iterator[HeadTask]:
    """Finds the products whose heads lost channels, and whose layers can make up for it.

    Args:
        dense: the dense network.
        slim: the network that was cut from it, whose weights are as the cut left them; `notes` says what can't change.
        plan: by which it was cut.

    Returns:
        Products without moments yet.
    """
    there, here = (attention_of(net.result, net.recording, net.layers) for net in (dense, slim))
    unfit: dict[str, list[str]] = {}
    for values in (False, True):
        before, after = (both.values if values else both.logits for both in (there, here))
        what = "values" if values else "queries and keys"
        if [product.site for product in before] != [product.site for product in after]:
            slim.notes.append(f"{what} of attention stay as cut: the slim network multiplies them elsewhere")
            continue
        for old, new in zip(before, after, strict=True):
            if new.width < old.width:
                try:
                    yield _task(old, new, values, dense, slim, plan)
                except Unfit as error:
                    unfit.setdefault(f"{what} stay as cut: {error}", []).append(old.module)
    for reason, modules in unfit.items():
        more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
        slim.notes.append(f"{', '.join(modules[:3])}{more}: {reason}")


def _task(
    old: Product, new: Product, values: bool, dense: WritableNetwork, slim: WritableNetwork, plan: Plan
) -> HeadTask:
    """Raises Unfit where a side is not a layer's: what comes in between may do another thing to fewer channels."""
    reasons: list[str] = []
    sides: list[tuple[np.ndarray, np.ndarray] | None] = []
    for before, after, dim in ((old.left, new.left, int(values)), (old.right, new.right, 0)):
        try:
            sides.append(_matched(before, after, dense, slim, plan, dim))
        except Unfit as error:
            reasons.append(str(error))
            sides.append(None)
    left, right = sides
    if left is None or right is None:
        raise Unfit("; ".join(dict.fromkeys(reasons)))
    if not values and len(left[0]) != len(right[0]):  # one serves several heads of the other, so it stays
        wide = len(left[0]) > len(right[0])
        return HeadTask(old, new, values, *(left if wide else right), sides=(wide, not wide))
    patterns = [side.pattern for side in (old.left, old.right) if isinstance(side, Heads)]
    if not np.array_equal(patterns[0], patterns[-1]) or not all(map(np.array_equal, left, right)):
        raise Unfit("its two sides have their heads or channels in another order")
    return HeadTask(old, new, values, *left, sides=(True, True))


def _matched(
    before: Heads | str, after: Heads | str, dense: WritableNetwork, slim: WritableNetwork, plan: Plan, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which dense head each slim head is, and which of its channels stayed; raises Unfit where that can't be told."""
    if isinstance(before, str) or isinstance(after, str):
        raise Unfit(before if isinstance(before, str) else str(after))
    key = before.layer.weight
    if after.layer.weight != key:
        raise Unfit("another layer makes them in the slim network")
    weight = dense.state[key]
    kept = kept_of(plan, key, dim, weight.shape[dim])
    if not _as_cut(weight, slim.state[key], plan, key):
        raise Unfit(f"{key} was changed since the cut")
    places = np.full((weight.shape[dim], 2), -1)
    for head, channels in enumerate(before.channels):
        places[channels] = np.stack([np.full(len(channels), head), np.arange(len(channels))], 1)
    head, place = np.moveaxis(places[kept[after.channels]], -1, 0)
    if (head < 0).any() or (head != head[:, :1]).any():
        raise Unfit("its heads are other channels in the slim network")
    return head[:, 0], place


def _as_cut(dense: Tensor, slim: Tensor, plan: Plan, key: str) -> bool:
    cut = dense
    for dim in range(dense.dim()):
        cut = cut.index_select(dim, torch.from_numpy(kept_of(plan, key, dim, dense.shape[dim])).to(dense.device))
    return bool(torch.equal(cut, slim))
