"""What must hold for any random network and plan: the slim network is the masked dense one, and the counts are true."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import structprune as sp

from ...errors import BudgetError, ModelError
from ...ops import Inputs
from ...report import count_macs
from ...report.fvcore_counts import MAC_OPERATORS
from ...verify import Comparison, compare_finest, compare_slim_with_masked, masked
from ...verify.running import attempt
from ..equality import Wrong
from ..random_networks import Case
from .stages import stage

SIZES = ((16, 16), (24, 12))  # of images, beside the size at which the network was traced
REACH = 0.7  # the next budget to try leaves this share of the cut that is out of reach


@dataclass(frozen=True)
class Figures:
    """How much of a network was pruned: shares, and the barriers in its graph as (op, reason)."""

    macs_cut: float
    groups: int
    groups_cut: int
    weights: int
    weights_cut: int
    barriers: tuple[tuple[str, str], ...]


def check(case: Case, onnx: bool = False) -> Figures:
    """Prunes a random network and compares it with the masked dense one.

    Args:
        case: The network and its plan.
        onnx: Whether the whole of `structprune.verify` runs, ONNX and reload included.

    Returns:
        How much was pruned.

    Raises:
        Wrong: The slim network differs, or is counted wrongly.
        Exception: structprune's own (or, in stage "dense", the network's); it carries the stage in which it came as its
            attribute `stage`.
    """
    model, x = case.build()
    with stage("dense"):
        _check_dense(model, x)
    with stage("trace"):
        graph = sp.trace(model, x, form=case.form)
    with stage("plan"):
        plan = reachable(graph, case)
    with stage("prune"):
        slim = sp.prune(model, plan)
    if onnx:
        with stage("verify"):
            _check_gate(model, slim, plan, x)
    else:
        with stage("compare"):
            _check_outputs(model, slim, plan, x)
    with stage("sizes"):
        _check_sizes(model, slim, plan, x)
    with stage("count"):
        _check_counts(slim, plan, x)
    weights = [key for key, tensor in model.named_parameters() if tensor.dim() > 1]
    return Figures(
        macs_cut=1 - plan.macs["slim"] / plan.macs["dense"],
        groups=len(plan.groups),
        groups_cut=sum(len(group["kept"]) < group["units"] for group in plan.groups.values()),
        weights=len(weights),
        weights_cut=sum(key in plan.keep for key in weights),
        barriers=tuple((barrier.op, barrier.reason) for barrier in graph.barriers),
    )


def reachable(graph: Any, case: Case) -> sp.Plan:
    """A plan with random scores for the budget of `case`, or for the least one above it that can be met (about)."""
    rng = np.random.default_rng(case.seed)
    scores = sp.score(graph, lambda group: torch.from_numpy(rng.random(group.units)))
    allocation = "global" if case.seed % 2 else "uniform"
    cut = 1 - case.ratio
    while True:
        try:
            return sp.plan(graph, scores, {"macs": 1 - cut}, allocation=allocation, max_ratio=1.0, align=1)
        except BudgetError:
            cut *= REACH
            if cut < 1e-4:
                raise


def _check_dense(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        output = model(x)
    if not bool(torch.isfinite(output).all()):
        raise ValueError("the dense network's outputs are not finite")


def _check_outputs(model: nn.Module, slim: nn.Module, plan: sp.Plan, x: Tensor) -> None:
    """In float64 at two batch sizes with the network's own weights, with random ones, and after a training step."""
    comparisons = compare_slim_with_masked(model, slim, plan, x, training=True)
    own, random, step = comparisons.values()
    if not own.passed:
        raise Wrong("own weights", own.detail)
    if own.batches != [1, 2] or own.detail:
        raise Wrong("own weights", f"compared at batch sizes {own.batches}: {own.detail}")
    if not random.passed:
        raise Wrong("random weights", random.detail)
    if step.failed:
        raise Wrong("a training step", step.detail)


def _check_sizes(model: nn.Module, slim: nn.Module, plan: sp.Plan, x: Tensor) -> None:
    """Images of other sizes, in another batch: where the dense network takes them, the slim one does too or, in the
    graph form, refuses by name; never another result."""
    reference = masked(model, plan)
    for size in SIZES:
        inputs = Inputs.of(torch.randn(3, *x.shape[1:-2], *size, generator=torch.Generator().manual_seed(size[0])))
        expected = attempt(reference, inputs)
        if expected is None or len(expected[0]) != 3:  # `view(-1, n)` may make other samples of an image twice as large
            continue
        comparison = Comparison.of(torch.float64)
        try:
            compare_finest(comparison, reference, slim, [inputs])
        except ModelError:
            if plan.program is None:
                raise
            continue
        if comparison.failed:
            raise Wrong("other sizes", f"at {size}: {comparison.detail}")


def _check_gate(model: nn.Module, slim: nn.Module, plan: sp.Plan, x: Tensor) -> None:
    gate = sp.verify(model, slim, plan, x)
    failed = [name for name, comparison in gate.comparisons().items() if comparison.failed]
    if failed == ["onnx"]:
        nothing = replace(plan, keep={}, shapes={}, attributes={})
        dense = sp.verify(model, model, nothing, x).onnx
        if not dense.passed:
            raise ModelError(f"the dense network fails in ONNX as well: {dense.detail}")
    if failed or not gate.passed:
        raise Wrong(" and ".join(failed) or "not compared", "; ".join(gate.reasons()))


def _check_counts(slim: nn.Module, plan: sp.Plan, x: Tensor) -> None:
    """The plan's counts are fvcore's where fvcore counts the op; its einsum is rounded to four digits."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused op that fvcore does not know
    try:
        counted = count_macs(slim, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    planned = {name: macs for name, macs in plan.macs_by_operator["slim"].items() if macs and name in MAC_OPERATORS}
    for name in {*counted, *planned}:
        ours, theirs = planned.get(name, 0), counted.get(name, 0)
        if abs(ours - theirs) > (1e-3 * theirs if name == "einsum" else 0):
            raise Wrong("MACs", f"{name} has {ours} in the plan, {theirs} by fvcore's count")
    params = sum(parameter.numel() for parameter in slim.parameters())
    if params != plan.params["slim"]:
        raise Wrong("parameters", f"{plan.params['slim']} in the plan, {params} in the slim network")
