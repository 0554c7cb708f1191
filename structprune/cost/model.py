"""What a forward pass takes, as a function of the widths, fitted to probes.

Each kernel's time is taken for

    a + b · |output| + c · |input| + d · work,        a, b, c, d ≥ 0,

with |·| the elements of its tensors and work, for a convolution or a matrix product, a multiple of its multiply-adds
(non-negative least squares of relative errors). Runtimes make a few blocks of channels at a time and are slower where
fewer are left over, so there is also work with the channels made in whole sets of 32 and 64. How sizes follow the
widths is read off the probes: what one axis of a kernel's tensor measures in them is matched with the lengths, in
whole blocks, that the dependency graph gives its own axes. So what the runtime fuses, pads and reorders counts as it
is, whatever it is called. The sum over the kernels of all that goes with widths, and a constant, both fitted to what
whole runs take, is the model: a microsecond or two of each `a` is only the watching of kernels, which whole runs are
without.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import nnls

from ..graph import DependencyGraph, Polynomial, WidthCounter
from ..graph.axes import alive
from ..graph.counting import moving_axes
from ..graph.removal import mark_removed
from ..runtimes.engine import Kernel
from ..runtimes.runtime import Runtime
from .probes import Probe

BLOCKS = (1, 2, 4, 8, 16, 32)  # of channels, to whole numbers of which runtimes pad
SETS = (32, 64)  # channels that runtimes make at a time where there are enough: four blocks share what they load
FOLDS = 4
MOST = 0.75  # of the probes

Factor = tuple[np.ndarray, int]  # an axis of the graph, and the block to whole numbers of which it is padded
Monomial = tuple[float, tuple[Factor, ...]]


@dataclass(frozen=True)
class KernelCost:
    """A kernel of the dense network: what it takes there, and what it is expected to take at other widths."""

    name: str
    op: str
    layer: str
    dense_ms: float
    terms: tuple[Monomial, ...] = field(repr=False)


@dataclass(frozen=True)
class CostModel:
    """Milliseconds of a forward pass on one runtime: `base_ms`, and `scale` times what the kernels' terms come to.
    `error` is the median relative error on whole networks that the fit had not seen; `unmatched` the share of the time
    in kernels whose sizes follow no known axis."""

    runtime: Runtime
    multiples: dict[str, int]
    dense_ms: float
    kernels: tuple[KernelCost, ...]
    scale: float
    base_ms: float
    error: float
    unmatched: float
    probes: int

    @property
    def latency(self) -> Polynomial:
        totals: dict[tuple, list] = {(): [self.base_ms, ()]}
        for kernel in self.kernels:
            for coefficient, factors in kernel.terms:
                key = tuple(sorted((*_key(axis), block) for axis, block in factors))
                totals.setdefault(key, [0.0, factors])[0] += self.scale * coefficient
        return Polynomial(tuple(c for c, _ in totals.values()), tuple(tuple(f) for _, f in totals.values()))

    @property
    def fixed(self) -> float:
        """The share of the dense network's time that no width changes: the calls of kernels as such, and what goes with
        sizes that stay."""
        return self.base_ms / self.dense_ms

    def at(self, widths: Mapping[str, int], graph: DependencyGraph) -> float:
        """Expects the latency of a network with fewer units.

        Args:
            widths: how many units each group keeps; groups that are not named stay whole
            graph: the graph that the costs were learned on

        Returns:
            Milliseconds of one forward pass.
        """
        groups = {group.name: group for group in graph.groups}

        def kept(name: str, count: int) -> np.ndarray:
            return groups[name].chosen(np.ones(groups[name].units), count)

        whole = {group.name: group.units for group in graph.groups}
        return WidthCounter(graph, kept, {"ms": self.latency}).count({**whole, **widths})["ms"]

    def scaled(self, runtime: Runtime, dense_ms: float) -> CostModel:
        """Moves costs to another runtime, in the same proportions.

        Args:
            runtime: the other runtime
            dense_ms: milliseconds of the dense network there

        Returns:
            The costs there.
        """
        factor = dense_ms / self.dense_ms
        kernels = tuple(
            replace(k, dense_ms=k.dense_ms * factor, terms=tuple((c * factor, axes) for c, axes in k.terms))
            for k in self.kernels
        )
        return replace(self, runtime=runtime, dense_ms=dense_ms, kernels=kernels, base_ms=self.base_ms * factor)

    def corrected(self, factor: float) -> CostModel:
        """Corrects costs by what a measurement showed.

        Args:
            factor: measured over expected

        Returns:
            The same costs, with every network but the dense one `factor` times as slow.
        """
        return replace(self, scale=self.scale * factor, base_ms=self.base_ms * factor)


def by_macs(graph: DependencyGraph, dense_ms: float, multiples: Mapping[str, int], runtime: Runtime) -> CostModel:
    """The model where nothing but the dense network was timed: time goes with MACs, which `plan_measured` corrects."""
    total = graph.macs() or 1
    terms = tuple(
        (dense_ms * term.constant / term.divisor / total, tuple((axis, 1) for axis in term.axes))
        for term in graph.macs_terms
    )
    kernel = KernelCost("the network", "MACs", "", dense_ms, terms)
    return CostModel(runtime, dict(multiples), dense_ms, (kernel,), 1.0, 0.0, math.nan, 1.0, 0)


@dataclass(frozen=True)
class _Fit:
    kernels: tuple[KernelCost, ...]
    scale: float
    base_ms: float


def fit(
    graph: DependencyGraph,
    probes: Sequence[Probe],
    dense_ms: float,
    *,
    multiples: dict[str, int],
    runtime: Runtime | None = None,
) -> CostModel:
    """The model that explains the probes; the first must be at the dense widths."""
    axes = _Axes(graph, probes)
    model = _fit(probes, axes)
    errors = []
    for fold in range(FOLDS):
        training = [p for i, p in enumerate(probes) if i == 0 or i % FOLDS != fold]
        others = [p for i, p in enumerate(probes) if i and i % FOLDS == fold]
        trained = _fit(training, axes)
        errors += [abs(_predict(graph, trained, p) / p.ms - 1) for p in others]
    total = sum(kernel.dense_ms for kernel in model.kernels) or 1.0
    lost = sum(k.dense_ms for k in model.kernels if k.name in axes.unmatched or k.name not in axes.common)
    return CostModel(
        runtime or Runtime(),
        dict(multiples),
        dense_ms,
        model.kernels,
        model.scale,
        model.base_ms,
        statistics.median(errors) if errors else math.nan,
        lost / total,
        len(probes),
    )


def _fit(probes: Sequence[Probe], axes: _Axes) -> _Fit:
    """Every kernel that all probes have by its own terms; the rest is in the scale and the base of the sum."""
    by_name = [{kernel.name: kernel for kernel in probe.kernels} for probe in probes]
    kernels, moving = [], np.zeros(len(probes))  # what goes with widths
    for first in probes[0].kernels:
        if first.name not in axes.common:
            kernels.append(KernelCost(first.name, first.op, first.layer, first.microseconds / 1e3, ()))
            continue
        times = np.maximum([names[first.name].microseconds for names in by_name], 0.5) / 1e3
        monomials = axes.monomials(first.name)
        values = np.stack([_values(m, probes, axes) for m in monomials], axis=1)
        coefficients, _ = nnls(values / times[:, None], np.ones(len(probes)))
        moving += values[:, 1:] @ coefficients[1:]
        terms = tuple((float(c * m[0]), m[1]) for c, m in zip(coefficients, monomials, strict=True) if c > 0 and m[1])
        kernels.append(KernelCost(first.name, first.op, first.layer, float(times[0]), terms))
    whole = np.array([probe.ms for probe in probes])
    columns = np.stack([moving, np.ones(len(probes))], axis=1)
    (scale, base), _ = nnls(columns / whole[:, None], np.ones(len(probes)))
    return _Fit(tuple(kernels), float(scale), float(base))


def _values(monomial: Monomial, probes: Sequence[Probe], axes: _Axes) -> np.ndarray:
    constant, factors = monomial
    result = np.full(len(probes), constant)
    places = [axes.place[id(probe)] for probe in probes]
    for axis, block in factors:
        result = result * axes.lengths(axis, block)[places]
    return result


def _predict(graph: DependencyGraph, fitted: _Fit, probe: Probe) -> float:
    model = CostModel(Runtime(), {}, 1.0, fitted.kernels, fitted.scale, fitted.base_ms, 0.0, 0.0, 0)
    return model.at(probe.widths, graph)


class _Axes:
    """The axes of the graph by how long they are in each probe."""

    def __init__(self, graph: DependencyGraph, probes: Sequence[Probe]) -> None:
        self.place = {id(probe): i for i, probe in enumerate(probes)}
        self.unmatched: set[str] = set()
        removed = [
            mark_removed(graph, {g.name: g.chosen(np.ones(g.units), probe.widths[g.name]) for g in graph.groups})
            for probe in probes
        ]
        self._lengths: dict[tuple, np.ndarray] = {}
        self._known: dict[tuple[int, ...], Factor] = {}
        axes = moving_axes(graph)
        for block in BLOCKS:  # the smallest block that explains a size
            for axis in axes:
                key = _key(axis)
                if key not in self._lengths:
                    self._lengths[key] = np.array([int(alive(axis, gone).sum()) for gone in removed])
                whole = self.lengths(axis, block)
                if whole.min() > 0 and whole.min() < whole.max():
                    self._known.setdefault(_proportions(whole), (axis, block))
        ops = [{kernel.name: kernel.op for kernel in probe.kernels} for probe in probes]
        self.common = {name for name, op in ops[0].items() if all(other.get(name) == op for other in ops)}
        self._calls: dict[str, list[Kernel]] = {}
        for probe in probes:
            for kernel in probe.kernels:
                self._calls.setdefault(kernel.name, []).append(kernel)
        self._monomials: dict[str, list[Monomial]] = {}

    def lengths(self, axis: np.ndarray, block: int) -> np.ndarray:
        return -(-self._lengths[_key(axis)] // block) * block

    def monomials(self, name: str) -> list[Monomial]:
        """What a kernel's time may be made of: 1, and whichever of its sizes are known as functions of the widths."""
        if name not in self._monomials:
            calls = self._calls[name]
            monomials: list[Monomial] = [(1.0, ())]
            candidates = (
                [_output, _input, _work] if any(kind in calls[0].op for kind in _WORKING) else [_output, _input]
            )
            for sizes in candidates:
                rows = [sizes(kernel) for kernel in calls]
                if any(len(row) != len(rows[0]) for row in rows):
                    continue
                columns = np.array(rows, dtype=np.int64).reshape(len(rows), -1)
                monomial = self._monomial(columns)
                if monomial is None:
                    self.unmatched.add(name)
                elif monomial[1]:
                    monomials.append(monomial)
                    if sizes is _work:
                        monomials += self._in_sets(monomial, columns[:, _made(calls[0])])
            self._monomials[name] = monomials
        return self._monomials[name]

    def _in_sets(self, work: Monomial, outputs: np.ndarray) -> list[Monomial]:
        """The work if the channels that a kernel makes, `outputs` in each probe, are made so many at a time."""
        known = self._known.get(_proportions(outputs))
        if known is None or (outputs == outputs[0]).all():
            return []
        (axis, block), (constant, factors) = known, work
        place = next(i for i, (other, _) in enumerate(factors) if _key(other) == _key(axis))
        monomials = []
        for size in SETS:
            if block < size < outputs[0]:
                whole = self.lengths(axis, block)[0] / self.lengths(axis, size)[0]
                monomials.append((constant * whole, (*factors[:place], (axis, size), *factors[place + 1 :])))
        return monomials

    def _nearest(self, sizes: np.ndarray) -> Factor | None:
        """The axis and block that explain a size in most probes: a runtime may pad all but the narrowest widths."""
        best: tuple[float, Factor | None] = (MOST, None)
        for axis, block in self._known.values():
            whole = self.lengths(axis, block)
            share = float((sizes * whole[0] == whole * sizes[0]).mean())
            if share >= best[0]:
                best = (share, (axis, block))
        return best[1]

    def _monomial(self, sizes: np.ndarray) -> Monomial | None:
        """The product of sizes, each of shape (probes,), that the columns hold; None if one follows no known axis."""
        constant, factors = 1.0, []
        for column in sizes.T:
            if (column == column[0]).all():
                constant *= float(column[0])
                continue
            known = self._known.get(_proportions(column)) or self._nearest(column)
            if known is None:
                return None
            constant *= float(column[0] / self.lengths(*known)[0])
            factors.append(known)
        return constant, tuple(factors)


def _key(axis: np.ndarray) -> tuple[bytes, str]:
    return axis.tobytes(), str(axis.shape)


def _proportions(sizes: np.ndarray) -> tuple[int, ...]:
    return tuple((sizes // np.gcd.reduce(sizes)).tolist())


def _made(kernel: Kernel) -> int:
    """Which of the sizes of `_work` is the channels that the kernel makes."""
    return 1 if "Conv" in kernel.op else len(kernel.outputs[0]) - 1


_WORKING = ("Conv", "MatMul", "Gemm", "Attention")


def _output(kernel: Kernel) -> tuple[int, ...]:
    return kernel.outputs[0] if kernel.outputs else ()


def _input(kernel: Kernel) -> tuple[int, ...]:
    return kernel.inputs[0] if kernel.inputs else ()


def _work(kernel: Kernel) -> tuple[int, ...]:
    """Sizes whose product goes with the number of multiply-adds.

    That is each output times the weights that make it. Where the runtime does not show the weights as they were (int8,
    transposed convolutions), it is |input| · |output|, which is as good: only channels vary.
    """
    if kernel.op in ("Conv", "FusedConv") and len(kernel.inputs) > 1 and len(kernel.inputs[1]) > 2:
        return (*kernel.outputs[0], *kernel.inputs[1][1:])
    return (*kernel.outputs[0], *kernel.inputs[0]) if kernel.inputs and kernel.outputs else ()
