"""A number over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .records import Spread


def spread(values: Sequence[float]) -> Spread:
    """Finds the mean and the sample standard deviation of some numbers, one at least."""
    return Spread(mean=float(np.mean(values)), std=float(np.std(values, ddof=1)) if len(values) > 1 else None)


def shown_spread(number: Spread | None, digits: int) -> str:
    """Shows a mean and its standard deviation, if there is one.

    Args:
        number: The number over seeds; None where no run finished.
        digits: Decimal places.

    Returns:
        The text.
    """
    if number is None:
        return "-"
    return f"{number.mean:.{digits}f}" + ("" if number.std is None else f" ± {number.std:.{digits}f}")
