"""What widths cost on the runtime, as methods that plan a cut take it and as their checkpoints keep it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..graph import DependencyGraph, Polynomial
from ..graph.counting import moving_axes

if TYPE_CHECKING:
    from ..plan.budget import Cost


@dataclass(frozen=True)
class WidthCosts:
    """Milliseconds of a forward pass as a function of the widths, and those of the dense network; a `Cost` of plans."""

    latency: Polynomial = field(repr=False)
    dense_ms: float

    @classmethod
    def of(cls, cost: Cost) -> WidthCosts:
        """Those of any cost."""
        return cls(cost.latency, float(cost.dense_ms))

    def are_of(self, graph: DependencyGraph) -> bool:
        """Whether they go by axes that this graph has too, as those of one network's graphs do."""
        axes = [*moving_axes(graph), *(axis for term in graph.macs_terms for axis in term.axes)]
        known = {(axis.tobytes(), axis.shape) for axis in axes}
        return all((axis.tobytes(), axis.shape) in known for row in self.latency.axes for axis, _ in row)

    def state(self) -> Any:
        """What `of_state` makes them of: tensors and plain values."""
        import torch

        axes: dict[tuple[bytes, tuple[int, ...]], int] = {}
        tensors, rows = [], []
        for row in self.latency.axes:
            factors = []
            for axis, block in row:
                key = (axis.tobytes(), axis.shape)
                if key not in axes:
                    axes[key] = len(axes)
                    tensors.append(torch.as_tensor(axis.copy()))
                factors.append([axes[key], int(block)])
            rows.append(factors)
        return [self.dense_ms, [float(value) for value in self.latency.coefficients], rows, tensors]

    @classmethod
    def of_state(cls, state: Any) -> WidthCosts:
        """Those that `state` was taken of."""
        dense_ms, coefficients, rows, tensors = state
        axes = [tensor.cpu().numpy() for tensor in tensors]
        terms = tuple(tuple((axes[index], block) for index, block in row) for row in rows)
        return cls(Polynomial(tuple(coefficients), terms), dense_ms)
