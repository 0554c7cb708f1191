"""What timings in rounds of turns tell: how sure a ratio is, and whether the machine was quiet."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

WIDE = 0.1  # an interval of this share of the speedup is too wide to quote a factor
NOISY, DRIFT = 1.5, 1.15  # ratios of the reference's own times from which the machine was not quiet


def interval_of_median(ratios: list[np.ndarray], rng: np.random.Generator, draws: int = 2000) -> tuple[float, float]:
    """The 95 % percentile interval of the median, drawing rounds and then turns within them."""
    medians = np.empty(draws)
    for i in range(draws):
        rounds = rng.integers(len(ratios), size=len(ratios))
        drawn = [ratios[r][rng.integers(len(ratios[r]), size=len(ratios[r]))] for r in rounds]
        medians[i] = np.median(np.concatenate(drawn))
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


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


def too_wide(speedup: Mapping[str, float], interval: Mapping[str, tuple[float, float]]) -> list[str]:
    """Which speedups have an interval that is too wide to quote a factor."""
    return [
        f"{name}'s interval of {low:.2f} to {high:.2f} is too wide to quote a factor: time for longer, or on a quieter "
        "machine"
        for name, (low, high) in interval.items()
        if high - low >= WIDE * speedup[name]
    ]
