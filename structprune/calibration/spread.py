"""Mean and variance of channels, gathered a part at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..memory_limits import parts

AT_ONCE = 2**25  # bytes that are turned into float64 at a time


class Spread:
    """Sums over all values that it is shown, about the means of the first, so that nothing cancels."""

    def __init__(self) -> None:
        self.count = 0  # values a channel
        self._origin: Tensor | None = None
        self._first: Tensor | float = 0.0
        self._second: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Takes in more values of each channel.

        Args:
            values: shape (channels, ...), at least one of each channel
        """
        each = values[:1].numel()
        places = list(parts(len(values), 8.0 * each, AT_ONCE))
        if self._origin is None:
            self._origin = torch.cat([values[place].flatten(1).double().mean(1) for place in places])
        first, second = [], []
        for place in places:
            shifted = values[place].flatten(1).double() - self._origin[place, None]
            first.append(shifted.sum(1))
            second.append(shifted.square_().sum(1))
        self.count += each
        self._first, self._second = self._first + torch.cat(first), self._second + torch.cat(second)

    def mean(self) -> Tensor:
        """The mean of all values so far.

        Returns:
            Shape (channels,), float64.
        """
        assert self._origin is not None
        return self._origin + self._first / self.count

    def variance(self) -> Tensor:
        """The mean squared distance from the mean.

        Returns:
            Shape (channels,), float64, never negative.
        """
        mean = torch.as_tensor(self._first) / self.count
        return (torch.as_tensor(self._second) / self.count - mean.square()).clamp_min(0)
