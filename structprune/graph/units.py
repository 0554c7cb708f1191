"""The channel algebra: units, and which of them stand or fall together (see `axes` for what carries them).

Between units there are four relations, all settled at the end by `Units.resolve`:

- *tied*: removed together;
- *derived*: removed when any of a set is (a position of 3 heads × 64 channels goes with its head or its channel);
- *balanced*: blocks of positions must lose the same number (the groups of a grouped convolution);
- *frozen*: never removed.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .axes import Axis, aligned, alike, compress, read_only
from .balance import Strata, hindrance, rates, without
from .balance import merge as merge_strata
from .balance import strata as strata_of


@dataclass(frozen=True)
class Cause:
    """Why channels stay, and the node where they had to.

    It is no `barrier` where they would stay in any network: outputs, the only channel of a layer.
    """

    op: str
    node: str
    module: str
    reason: str
    line: str = ""
    barrier: bool = True


@dataclass(frozen=True, eq=False)
class Resolution:
    """What the relations come to.

    `table[u]` lists the classes of tied units, -1 padding, that remove unit u (its last row stands for -1, no unit).
    `frozen` says which classes stay, `freezes` holds (classes, cause) for each freeze, and `strata` lists, for each
    balance that is not met by itself, arrays of classes, and `rates` how many of each must go at a time.
    """

    classes: int
    table: np.ndarray
    frozen: np.ndarray
    freezes: Sequence[tuple[np.ndarray, int]]
    strata: Sequence[Sequence[np.ndarray]]
    rates: Sequence[Sequence[int]]
    _known: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        freezes, strata = (classes for classes, _ in self.freezes), itertools.chain(*self.strata)
        for array in (self.table, self.frozen, *freezes, *strata):
            read_only(array)

    def of(self, axis: np.ndarray) -> np.ndarray:
        """The classes on each position of an axis: shape (positions, k). One array for each axis."""
        if id(axis) not in self._known:  # with the axis itself, so that its id is not given to another
            classes = compress(self.table[axis].reshape(len(axis), axis.shape[1] * self.table.shape[1]))
            self._known[id(axis)] = read_only(axis), read_only(classes)
        return self._known[id(axis)][1]

    def freezing(self, stays: Sequence[tuple[np.ndarray, int]]) -> Resolution:
        """The same, but more classes stay: pairs of classes and the number of a cause."""
        frozen = self.frozen.copy()
        for classes, _ in stays:
            frozen[classes] = True
        return replace(self, frozen=frozen, freezes=(*self.freezes, *stays))


class Units:
    """Hands out unit ids and records how they hang together; `causes` are the reasons of freezes."""

    def __init__(self) -> None:
        self.count = 0
        self.causes: list[Cause] = []
        self._starts: list[int] = []
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._derived: list[tuple[np.ndarray, np.ndarray, Cause]] = []
        self._balanced: list[tuple[np.ndarray, Cause]] = []
        self._frozen: list[tuple[np.ndarray, int]] = []

    def axis(self, positions: int) -> np.ndarray:
        """A new axis with one new unit at each position."""
        self._starts.append(self.count)
        start, self.count = self.count, self.count + positions
        return np.arange(start, self.count).reshape(-1, 1)

    def origin(self, unit: int) -> int:
        """The first unit of the axis that `unit` was made for."""
        return self._starts[bisect.bisect_right(self._starts, unit) - 1]

    def freeze(self, axis: np.ndarray, cause: Cause | None) -> None:
        """No position of `axis` may be removed; without a cause, that is no barrier (what a product leaves)."""
        number = FIXED
        if cause is not None:
            if not self.causes or self.causes[-1] != cause:
                self.causes.append(cause)
            number = len(self.causes) - 1
        self._frozen.append((axis[axis >= 0], number))

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Unit i of `a` and unit i of `b` are one. Shapes must be equal, and no entry -1."""
        if a is not b and a.size and not np.array_equal(a, b):
            self._ties.append((a.ravel(), b.ravel()))

    def couple(self, a: np.ndarray, b: np.ndarray, cause: Cause) -> np.ndarray:
        """Position i of axis `a` and position i of axis `b` are removed together; what both carry then."""
        a, b = compress(a), compress(b)
        fixed_a, fixed_b = (a < 0).all(axis=1), (b < 0).all(axis=1)
        uneven = fixed_a != fixed_b  # positions that one side can't lose
        if uneven.any():
            self.freeze(np.concatenate([a[uneven].ravel(), b[uneven].ravel()]), cause)
        live = ~fixed_a & ~fixed_b
        if a.shape[1] > b.shape[1]:
            a, b = b, a
        if a.shape[1] == b.shape[1]:
            b = aligned(a, b)
            same = live & ((a < 0) == (b < 0)).all(axis=1)
            self.tie(a[same][a[same] >= 0], b[same][b[same] >= 0])
            live &= ~same
        single = live & ((a >= 0).sum(axis=1) == 1)
        self.derive(a[single].max(axis=1), b[single], cause)
        odd = live & ~single
        if odd.any():
            self.freeze(np.concatenate([a[odd].ravel(), b[odd].ravel()]), cause)
        return np.where(uneven[:, None], -1, b) if uneven.any() else b

    def derive(self, units: np.ndarray, sets: np.ndarray, cause: Cause) -> None:
        """Unit i is removed exactly when any unit of row i of `sets` (-1 for none) is."""
        if not len(units):
            return
        for rows, pattern in alike(sets):
            members = sets[rows][:, pattern]
            if members.shape[1] == 1:
                self.tie(units[rows], members[:, 0])
            elif members.shape[1]:
                self._derived.append((units[rows], members, cause))

    def balance(self, blocks: Sequence[np.ndarray], cause: Cause) -> None:
        """Each of `blocks`, axes of equal length, keeps the same number of positions."""
        columns = max(block.shape[1] for block in blocks)
        padded = [np.pad(b, ((0, 0), (0, columns - b.shape[1])), constant_values=-1) for b in blocks]
        self._balanced.append((np.stack(padded), cause))

    def split(self, axis: np.ndarray, sizes: Sequence[int], cause: Cause) -> list[Axis]:
        """The axes of a row-major reshape of one axis into `sizes`.

        Units that vary along one of the new axes belong to it. Others are derived from new units, one for each
        place of each of the axes along which they vary.
        """
        parts: list[list[np.ndarray]] = [[] for _ in sizes]
        for column in axis.T:
            grid = column.reshape(sizes)
            varies = [d for d in range(len(sizes)) if (grid != grid.take([0], axis=d)).any()]
            if not varies and grid.size and grid.flat[0] >= 0:
                self.freeze(grid.reshape(-1)[:1], cause)  # would remove everything
            if len(varies) == 1:
                index = tuple(slice(None) if d == varies[0] else 0 for d in range(len(sizes)))
                parts[varies[0]].append(grid[index])
            if len(varies) < 2:
                continue
            grid = grid[tuple(slice(None) if d in varies else 0 for d in range(len(sizes)))]
            axes = [self.axis(n)[:, 0] for n in grid.shape]
            spread = np.stack([np.broadcast_to(_on(m, i, grid.ndim), grid.shape) for i, m in enumerate(axes)], axis=-1)
            fixed = grid < 0
            if fixed.any():
                self.freeze(spread[fixed], cause)
            self.derive(grid[~fixed], spread[~fixed], cause)
            for d, units in zip(varies, axes, strict=True):
                parts[d].append(units)
        return [np.stack(columns, axis=1) if columns else None for columns in parts]

    # --- settling -----------------------------------------------------------------------------------------

    def resolve(self) -> Resolution:
        """Classes, what removes each unit, and what must stay. Relations that can't hold freeze what they name."""
        strata: list[Strata] = []
        while True:
            labels, classes = self._components()
            if self._simplify(labels, classes) or self._unify(labels):
                continue
            table = self._table(labels, classes)
            if table is None:
                continue
            settled = self._settle(table, labels)
            if settled is not None:
                strata = settled
                break
        frozen = np.zeros(classes + 1, bool)
        freezes = []
        for units, cause in self._frozen:
            touched = table[units]
            touched = touched[touched >= 0]
            frozen[touched] = True
            freezes.append((touched, cause))
        arrays = tuple(tuple(np.array(sorted(stratum)) for stratum in balance) for balance in strata)
        of_strata = tuple(tuple(rates(balance)) for balance in strata)
        return Resolution(classes, table, frozen[:-1], tuple(freezes), arrays, of_strata)

    def _components(self) -> tuple[np.ndarray, int]:
        if not self._ties:
            return np.arange(self.count), self.count
        left = np.concatenate([a for a, _ in self._ties])
        right = np.concatenate([b for _, b in self._ties])
        self._ties = [(left, right)]
        links = coo_array((np.ones(len(left), bool), (left, right)), shape=(self.count, self.count))
        count, labels = connected_components(links, directed=False)
        return labels, int(count)

    def _simplify(self, labels: np.ndarray, classes: int) -> bool:
        """Takes units that stay out of the sets that others are derived from, where that leaves something.

        A unit that is derived from itself and others, as it is tied to one of them by another way, goes with it alone:
        the others stay.
        """
        frozen = np.zeros(classes + 1, bool)
        for units, _ in self._frozen:
            frozen[labels[units]] = True
        news = False
        rest, self._derived = self._derived, []
        for units, sets, cause in rest:
            own = (sets >= 0) & (labels[sets] == labels[units][:, None])
            rows = own.any(axis=1)
            if rows.any():
                news = True
                self.freeze(sets[rows][~own[rows]], cause)
                units, sets = units[~rows], sets[~rows]
            stays = (sets >= 0) & frozen[labels[sets]]
            rows = stays.any(axis=1) & ~stays.all(axis=1)
            if not rows.any():
                self._derived.append((units, sets, cause))
                continue
            news = True
            if not rows.all():
                self._derived.append((units[~rows], sets[~rows], cause))
            self.derive(units[rows], np.where(stays[rows], -1, sets[rows]), cause)
        return news

    def _unify(self, labels: np.ndarray) -> bool:
        """Two sets that one class is derived from must be one: ties them, member by member; True if that is news."""
        news = False
        arity: dict[int, int] = {}
        for size in sorted({sets.shape[1] for _, sets, _ in self._derived}):
            chosen = [(u, s, c) for u, s, c in self._derived if s.shape[1] == size]
            classes = labels[np.concatenate([u for u, _, _ in chosen])]
            sets = np.concatenate([s for _, s, _ in chosen])
            _, first, which = np.unique(classes, return_index=True, return_inverse=True)
            reference = sets[first][which.ravel()]
            differ = labels[reference] != labels[sets]
            if differ.any():
                self.tie(reference[differ], sets[differ])
                news = True
            for label in np.unique(classes).tolist():
                if label in arity:
                    news |= self._drop(labels, label, arity[label], size)
                arity.setdefault(label, size)
        return news

    def _drop(self, labels: np.ndarray, label: int, kept: int, dropped: int) -> bool:
        """One class, two sets of different sizes: everything in them stays, and the second is forgotten."""
        rest = []
        for units, sets, cause in self._derived:
            rows = labels[units] == label
            if rows.any() and sets.shape[1] in (kept, dropped):
                self.freeze(
                    sets[rows].ravel(), _because(cause, "these channels are split in two ways that don't agree")
                )
                if sets.shape[1] == dropped:
                    units, sets = units[~rows], sets[~rows]
            if len(units):
                rest.append((units, sets, cause))
        self._derived = rest
        return True

    def _table(self, labels: np.ndarray, classes: int) -> np.ndarray | None:
        """For each unit the classes that remove it; None if sets run in a circle, which are then frozen and dropped."""
        columns = max((s.shape[1] for _, s, _ in self._derived), default=1)
        sets = np.full((classes + 1, columns), -1)
        derived = np.zeros(classes + 1, bool)
        for units, members, _ in self._derived:
            sets[labels[units], : members.shape[1]] = labels[members]
            derived[labels[units]] = True
        table = np.append(labels, -1)[:, None]
        for _ in range(12):
            again = derived[table]
            if not again.any():
                return table
            wide = np.full((*table.shape, columns), -1)
            wide[..., 0] = table
            wide[again] = sets[table[again]]
            table = compress(wide.reshape(len(table), -1))
            if table.shape[1] > 64 and derived[table].any():
                break
        circular = np.unique(table[derived[table]])
        rest = []
        for units, members, cause in self._derived:
            rows = np.isin(labels[units], circular)
            if rows.any():
                why = _because(cause, "these channels are split in a way that comes back to themselves")
                self.freeze(np.append(members[rows].ravel(), units[rows]), why)
            if not rows.all():
                rest.append((units[~rows], members[~rows], cause))
        self._derived = rest
        return None

    def _settle(self, table: np.ndarray, labels: np.ndarray) -> list[Strata] | None:
        """The strata of all balances; None if one had to be met by ties, or by what stays, so that all is to be settled
        again."""
        balances: list[Strata] = []
        kept = []
        frozen = np.zeros(int(table.max(initial=-1)) + 2, bool)
        for units, _ in self._frozen:
            frozen[table[units]] = True
        frozen[-1] = False
        for blocks, cause in self._balanced:
            classes = without(table[blocks].reshape(*blocks.shape[:2], -1), frozen)
            strata = strata_of(classes)
            merged = None if strata is None else merge_strata(balances, strata)
            if merged is not None:
                balances = merged
                kept.append((blocks, cause))
                continue
            stay = hindrance(classes, balances)
            if stay is not None and not frozen[stay].all():
                why = _because(cause, f"{cause.reason}, and of heads times channels only one can follow")
                self.freeze(np.flatnonzero(np.isin(labels, stay)), why)
                return None
            for other in blocks[1:]:
                self.couple(blocks[0], other, cause)
        if len(kept) < len(self._balanced):
            self._balanced = kept
            return None
        return balances


FIXED = -1  # the cause of a freeze that is no barrier


def _because(cause: Cause, reason: str) -> Cause:
    return Cause(cause.op, cause.node, cause.module, reason, cause.line)


def _on(values: np.ndarray, dim: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if d == dim else 1 for d in range(rank)])
