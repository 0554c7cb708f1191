"""How a convolution's kernel slides over its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Window:
    """Where the windows of a convolution lie, for each spatial axis.

    Attributes:
        padding: how many places are added before and after.
        stride: how far one window is from the next.
        dilation: how far the places of one window are from each other.
        mode: what the added places hold, as `torch.nn.functional.pad` calls it.
    """

    padding: Sequence[tuple[int, int]]
    stride: Sequence[int]
    dilation: Sequence[int]
    mode: str = "constant"

    def size(self, places: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """Counts the windows along each axis.

        Args:
            places: the input's size along each axis
            kernel: the kernel's

        Returns:
            How many there are, axis by axis.
        """
        axes = zip(places, kernel, self.padding, self.stride, self.dilation, strict=True)
        return [(n + sum(added) - dilation * (k - 1) - 1) // stride + 1 for n, k, added, stride, dilation in axes]


def window(
    input: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Window:
    """That of a convolution with the arguments of `aten::conv2d`."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    strides, paddings, dilations = (_spread(value, rank) for value in (stride, padding, dilation))
    pairs = []
    for added, size, apart in zip(paddings, kernel, dilations, strict=True):
        reach = apart * (size - 1)
        if added == "same":
            pairs.append((reach // 2, reach - reach // 2))
        else:
            pairs.append((0, 0) if added == "valid" else (int(added), int(added)))
    return Window(pairs, strides, dilations)


def _spread(value: Any, rank: int) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value) if len(value) == rank else list(value) * rank
    return [value] * rank
