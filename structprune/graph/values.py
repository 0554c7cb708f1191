"""Tensors in the graph, and what their axes carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .axes import Axis


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its shape, what its axes carry, and the state_dict key if it is a parameter.

    `uniform` says that all its entries are one number, and stay so. `masked` says, for each axis, which number stands
    at every removed position of it in the dense network with the removed slices of all parameters set to zero (see
    `constants`); None where that is not known, () if nowhere.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    key: str | None = None
    uniform: bool = False
    masked: tuple[float | None, ...] = ()

    def at(self, dim: int) -> float | None:
        """Tells what stands at the removed positions of an axis.

        Args:
            dim: the dimension

        Returns:
            The number, or None if it is not known.
        """
        return self.masked[dim] if self.masked else None

    @staticmethod
    def fixed(shape: Sequence[int]) -> Value:
        """Makes a tensor of which no channel can go.

        Args:
            shape: its shape

        Returns:
            The value.
        """
        return Value(tuple(shape), (None,) * len(shape))

    @property
    def is_fixed(self) -> bool:
        return all(axis is None for axis in self.axes)


@dataclass(frozen=True)
class Stacked(Value):
    """Tensors along a new first axis, each with units of its own on the others: the states of a recurrent layer.

    All have one shape and equally many units on each axis, of which `axes` are those of the first.
    """

    parts: tuple[Value, ...] = ()

    @staticmethod
    def of(parts: Sequence[Value]) -> Stacked:
        first = parts[0]
        return Stacked((len(parts), *first.shape), (None, *first.axes), parts=tuple(parts))


def all_axes(value: Any) -> list[Axis]:
    if isinstance(value, Stacked):
        return all_axes(list(value.parts))
    return [axis for part in value for axis in all_axes(part)] if isinstance(value, list) else list(value.axes)


def fixed(value: Any) -> Any:
    """The same tensor or tensors, with nothing that can be removed."""
    return [fixed(part) for part in value] if isinstance(value, list) else Value.fixed(value.shape)
