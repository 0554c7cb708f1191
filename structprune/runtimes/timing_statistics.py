"""What timings in rounds of turns tell: how sure a ratio is, and whether the machine was quiet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDE = 0.1  # an interval of this share of the speedup is too wide to quote a factor
AT_ONCE = 2**20  # turns that are drawn at once
NOISY, DRIFT = 1.5, 1.15  # ratios of the reference's own times from which the machine was not quiet


def interval_of_median(ratios: list[np.ndarray], rng: np.random.Generator, draws: int = 2000) -> tuple[float, float]:
    """The 95 % percentile interval of the median, drawing rounds and then turns within them."""
    values = np.concatenate(ratios)
    block = max(1, AT_ONCE // len(values))
    medians = [_drawn_medians(ratios, values, min(block, draws - done), rng) for done in range(0, draws, block)]
    low, high = np.quantile(np.concatenate(medians), [0.025, 0.975])
    return float(low), float(high)


def _drawn_medians(ratios: list[np.ndarray], values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The medians of so many draws; `values` are the ratios of all rounds. A round has as many turns as it had."""
    lengths = np.array([len(turns) for turns in ratios])
    rounds = rng.integers(len(ratios), size=(draws, len(ratios)))
    sizes = lengths[rounds].sum(1)  # turns of each draw
    chosen = np.repeat(rounds.ravel(), lengths[rounds].ravel())  # by turn: the round that it is of
    turns = (np.cumsum(lengths) - lengths)[chosen] + rng.integers(lengths[chosen])
    order = np.argsort(values)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(values))
    places = np.repeat(np.arange(draws), sizes) * len(values) + ranks[turns]
    up_to = np.bincount(places, minlength=draws * len(values)).reshape(draws, -1).cumsum(1)  # how many turns, by value
    lower, upper = (values[order[(up_to <= middle[:, None]).sum(1)]] for middle in ((sizes - 1) // 2, sizes // 2))
    return (lower + upper) / 2


def disturbances(rounds: list[np.ndarray]) -> list[str]:
    """What the reference's own times tell of the machine. Ratios within a turn bear it, up to a point."""
    notes = []
    low, high = np.quantile(np.concatenate(rounds), [0.1, 0.9])
    if high > NOISY * low:
        notes.append(
            f"the reference's slowest tenth of runs took {high / low:.1f}x as long as its fastest tenth: other work "
            "was running, or the processor changed its clock"
        )
    third = len(rounds) // 3
    if third:
        first, last = (float(np.median(np.concatenate(part))) for part in (rounds[:third], rounds[-third:]))
        if abs(math.log(last / first)) > math.log(DRIFT):
            pace = "slower" if last > first else "faster"
            notes.append(f"the machine became {max(last / first, first / last):.2f}x {pace} while it was timed")
    return notes


def is_too_wide(speedup: float, interval: Sequence[float]) -> bool:
    """Whether the 95 % interval of a speedup is too wide to quote a factor.

    Args:
        speedup: The median.
        interval: Its bounds.

    Returns:
        False where a reader may take the median for the factor.
    """
    low, high = interval
    return high - low >= WIDE * speedup


def too_wide(speedup: Mapping[str, float], interval: Mapping[str, tuple[float, float]]) -> list[str]:
    """Which speedups have an interval that is too wide to quote a factor."""
    return [
        f"{name}'s interval of {low:.2f} to {high:.2f} is too wide to quote a factor: time for longer, or on a quieter "
        "machine"
        for name, (low, high) in interval.items()
        if is_too_wide(speedup[name], (low, high))
    ]
