"""A number over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .records import Spread


def spread(values: Sequence[float]) -> Spread:
    """Finds the mean and the sample standard deviation of some numbers, one at least."""
    return Spread(mean=float(np.mean(values)), std=float(np.std(values, ddof=1)) if len(values) > 1 else None)


def shown_spread(number: Spread | None, digits: int | None) -> str:
    """Shows a mean and its standard deviation, if there is one.

    Args:
        number: The number over seeds; None where no run finished.
        digits: Decimal places; None for as many as give the mean three digits that count.

    Returns:
        The text.
    """
    if number is None:
        return "-"
    if digits is None:
        digits = max(0, 2 - math.floor(math.log10(number.mean))) if number.mean > 0 else 0
    return f"{number.mean:.{digits}f}" + ("" if number.std is None else f" ± {number.std:.{digits}f}")
