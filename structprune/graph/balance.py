"""What it takes for several axes to stay equally long: which classes of units must lose how many each.

A balance is met stratum by stratum: each block's classes are a stratum, and a class of a stratum stands on so many
positions of its block. Blocks stay equally long if what each stratum loses, times that number, is the same: for every
head of 32 channels that goes from one axis, 32 single channels go from another.
"""

from __future__ import annotations

import math

import numpy as np

Strata = dict[frozenset[int], int]  # the classes of each stratum, and on how many positions each of them stands


def strata(blocks: np.ndarray) -> list[Strata] | None:
    """What a balance of blocks, shape (blocks, positions, k) of classes, asks for; None if it can't be told.

    Positions must be a full grid of what their columns hold, in each block. Then the blocks stay equal if they do
    column by column.
    """
    blocks = blocks[:, :, (blocks >= 0).any(axis=(0, 1))]
    wide = blocks.shape[2] > 1
    if _same(blocks):
        return []
    if wide and (blocks < 0).any():
        return None
    result = []
    for c in range(blocks.shape[2]):
        column = _column(blocks[:, :, c], wide)
        if column is None:
            return None
        if len(column) > 1:
            result.append(column)
    holders = [set(np.unique(blocks[:, :, c]).tolist()) - {-1} for c in range(blocks.shape[2])]
    if sum(map(len, holders)) > len(set().union(*holders)):
        return None
    if wide and any(len(np.unique(block, axis=0)) != np.prod([len(np.unique(c)) for c in block.T]) for block in blocks):
        return None
    return result


def _same(blocks: np.ndarray) -> bool:
    """Whether all blocks have the same positions, in whatever order."""
    if not blocks.shape[2]:
        return True
    rows = [np.sort(block, axis=1) for block in blocks]
    rows = [block[np.lexsort(block.T)] for block in rows]
    return all(np.array_equal(block, rows[0]) for block in rows[1:])


def _column(blocks: np.ndarray, full: bool) -> Strata | None:
    """The strata of one column, shape (blocks, positions); None where a block's classes are not all alike."""
    members: dict[int, list[int]] = {}
    times: dict[int, set[int]] = {}
    for b, column in enumerate(blocks):
        classes, counts = np.unique(column[column >= 0], return_counts=True)
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
            members.setdefault(label, []).append(b)
            times.setdefault(label, set()).add(count)
        if full and len(classes) * int(counts[0]) != len(column):
            return None
    columns: dict[tuple[int, ...], set[int]] = {}
    for label, where in members.items():
        columns.setdefault(tuple(where), set()).add(label)
    touched = [b for where in columns for b in where]
    if len(touched) != len(set(touched)) or len(touched) != len(blocks):
        return None
    result: Strata = {}
    for labels in columns.values():
        alike = set().union(*(times[label] for label in labels))
        if len(alike) > 1:
            return None
        result[frozenset(labels)] = int(alike.pop())
    return result


def merge(balances: list[Strata], additions: list[Strata]) -> list[Strata] | None:
    """Adds balances to others, joining those that share strata; None if two cut across each other."""
    for new in additions:
        covered = frozenset().union(*new)
        apart = []
        for old in balances:
            inside = frozenset().union(*old)
            if covered.isdisjoint(inside):
                apart.append(old)
                continue
            shared = old.keys() & new.keys()
            if shared and covered & inside == frozenset().union(*shared):
                joined = _joined(old, new)
                if joined is None:
                    return None
                new = joined
            elif _refines(old, new):
                new = old
            elif not _refines(new, old):
                return None
            covered = frozenset().union(*new)
        balances = [*apart, new]
    return balances


def _joined(old: Strata, new: Strata) -> Strata | None:
    """Two balances that share strata as one: what both say of these must be in proportion."""
    first = next(stratum for stratum in old if stratum in new)
    common = math.gcd(old[first], new[first])
    up, down = old[first] // common, new[first] // common
    if any(new[s] * up != old[s] * down for s in old.keys() & new.keys()):
        return None
    whole = {s: n * down for s, n in old.items()} | {s: n * up for s, n in new.items()}
    common = math.gcd(*whole.values())
    return {s: n // common for s, n in whole.items()}


def _refines(fine: Strata, coarse: Strata) -> bool:
    if len(set(fine.values())) > 1 or len(set(coarse.values())) > 1:
        return False
    inside = [sum(part <= whole for part in fine) for whole in coarse]
    return sum(inside) == len(fine) and len(set(inside)) == 1 and frozenset().union(*fine) == frozenset().union(*coarse)


def rates(balance: Strata) -> list[int]:
    """How many classes of each stratum go at a time."""
    whole = math.lcm(*balance.values())
    return [whole // n for n in balance.values()]


def without(blocks: np.ndarray, frozen: np.ndarray) -> np.ndarray:
    """The blocks without classes that stay anyway, but for one where a position would carry nothing."""
    stays = (blocks >= 0) & frozen[blocks]
    stays &= ((blocks >= 0) & ~frozen[blocks]).any(axis=2, keepdims=True)
    blocks = np.where(stays, -1, blocks)
    if ((blocks >= 0).sum(axis=2) <= 1).all():
        return blocks.max(axis=2, keepdims=True)
    return blocks


def hindrance(blocks: np.ndarray, balances: list[Strata]) -> np.ndarray | None:
    """Classes of which a balance could be met if they stayed: where one block is a grid (heads of so many channels) and
    another is not, all but one factor. None if that would not do.

    That factor is the one which is balanced already, or stands alone in another block, else the one of most classes.
    """
    grids = [[column for column in block.T if (column >= 0).any()] for block in blocks]
    if len({len(columns) for columns in grids}) < 2 or not all(grids):
        return None
    if any((column < 0).any() for columns in grids for column in columns if len(columns) > 1):
        return None
    counted = [np.array(sorted(stratum)) for balance in balances for stratum in balance]
    counted += [columns[0] for columns in grids if len(columns) == 1]
    counts = np.concatenate([np.empty(0, int), *counted])
    kept, stay = [], []
    for columns in grids:
        most = max(columns, key=lambda column: (np.isin(column, counts).all(), len(np.unique(column))))
        kept.append(most)
        stay += [column for column in columns if column is not most]
    gone = np.unique(np.concatenate(stay))
    alone = np.stack(kept)[:, :, None]
    if np.isin(alone, gone).any() or strata(alone) is None:
        return None
    return gone
