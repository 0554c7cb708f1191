"""What `structprune.trace` gives: the channel graph, with what people ask of it most."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .barriers import Barrier, find_barriers, find_reasons, find_whole_layers
from .channels import ChannelGraph, Place
from .counting import count_macs, count_macs_by_operator, count_params


@dataclass(frozen=True, eq=False, repr=False)
class DependencyGraph(ChannelGraph):
    """What can be removed from a model, and what each removal costs and saves (see `ChannelGraph` for its data)."""

    def __repr__(self) -> str:
        whose, units = type(self.model).__name__, sum(group.units for group in self.groups)
        return (
            f"<DependencyGraph of {whose} in {self.form} form: {len(self.groups)} groups of {units:,} units, "
            f"{len(self.barriers)} barriers, {self.macs():,} MACs, {self.params():,} parameters>"
        )

    @functools.cached_property
    def reasons(self) -> Mapping[Place, str]:
        """Why positions stay, for each parameter or buffer and axis of which some do, whatever is planned."""
        return MappingProxyType(find_reasons(self))

    @functools.cached_property
    def barriers(self) -> tuple[Barrier, ...]:
        """What keeps channels, and why."""
        return find_barriers(self, self.reasons)

    @functools.cached_property
    def whole_layers(self) -> Mapping[str, str]:
        """The layers all of whose channels stay, whatever is planned, by their paths, and why."""
        return MappingProxyType(find_whole_layers(self, self.reasons))

    def macs(self, kept: Mapping[str, np.ndarray] | None = None) -> int:
        """Counts the multiply-adds of one forward pass on the example inputs (see `count_macs`).

        Args:
            kept: for each group that is cut, the indices of the units that stay; whole without

        Returns:
            The count.
        """
        return count_macs(self, kept)

    def macs_by_operator(self, kept: Mapping[str, np.ndarray] | None = None) -> dict[str, int]:
        """Counts the multiply-adds of one forward pass on the example inputs, operator by operator.

        Args:
            kept: for each group that is cut, the indices of the units that stay; whole without

        Returns:
            The count for each operator, under the name that fvcore gives it.
        """
        return count_macs_by_operator(self, kept)

    def params(self, kept: Mapping[str, np.ndarray] | None = None) -> int:
        """Counts the parameters, trainable or frozen; buffers do not count.

        Args:
            kept: for each group that is cut, the indices of the units that stay; whole without

        Returns:
            The count.
        """
        return count_params(self, kept)
