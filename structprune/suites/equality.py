"""Holds slim networks against the masked dense one, for several random plans: how an op rule is tested."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import structprune as sp

from ..errors import BudgetError
from ..graph import DependencyGraph
from ..modules import replace_tensors, skeleton_copy, tensors
from ..ops import Inputs, outputs
from ..typing import Budget, Form
from ..verify import compare_slim_with_masked

PLANS = 3


class Wrong(AssertionError):
    """The slim network is not the planned one.

    Args:
        kind: In which comparison, for example `own weights`; the same for failures of the same sort.
        detail: What differs there, and by how much.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


def assert_slim_equals_masked(model: nn.Module, inputs: Any, *, form: Form = "module") -> DependencyGraph:
    """Traces a network, prunes it by random plans, and compares in float64, with its own weights and with random ones.

    Args:
        model: The dense network; it is put in evaluation mode.
        inputs: Example inputs, as `trace` takes them.
        form: `module` or `graph`, the form of the slim network.

    Returns:
        The graph, on which barriers and groups can be asserted.

    Raises:
        Wrong: A slim network differs, could not be compared, or nothing can be pruned: what must be a barrier is
            asserted on the graph.
    """
    model.eval()
    graph = sp.trace(model, inputs, form=form)
    for seed in range(PLANS):
        plan = random_plan(graph, seed)
        slim = sp.prune(model, plan)
        for weights, comparison in compare_slim_with_masked(model, slim, plan, inputs).items():
            if not (comparison.passed and comparison.batches):
                raise Wrong(f"{weights}, plan {seed}", comparison.detail)
    return graph


def assert_exact_is_exact(model: nn.Module, inputs: Any, *, form: Form = "module") -> DependencyGraph:
    """`assert_slim_equals_masked`; and where all groups are called exact, removing is masking with zero.

    Args:
        model: The dense network; it is put in evaluation mode.
        inputs: Example inputs, as `trace` takes them.
        form: `module` or `graph`, the form of the slim network.

    Returns:
        The graph.

    Raises:
        Wrong: As `assert_slim_equals_masked` does.
        AssertionError: The network with zeros has other outputs than the slim one.
    """
    graph = assert_slim_equals_masked(model, inputs, form=form)
    if all(group.exact for group in graph.groups):
        double = Inputs.of(inputs).map(lambda x: x.double() if x.is_floating_point() else x)
        for seed in range(PLANS):
            plan = random_plan(graph, seed)
            slim, dense = sp.prune(model, plan).double(), zeroed(model, plan.keep).double()
            with torch.no_grad():
                for actual, expected in zip(outputs(double.call(slim)), outputs(double.call(dense)), strict=True):
                    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    return graph


def zeroed(model: nn.Module, keep: dict[str, dict[str, Any]]) -> nn.Module:
    """A copy of the dense network with every removed slice of every parameter and buffer set to zero, but variances.

    Args:
        model: The dense network.
        keep: A plan's `keep`: the indices that stay, by parameter or buffer and axis; lists of them for the blocks of
            a grouped layer.

    Returns:
        The copy. It shares nothing with what `verify` masks by.
    """
    copy = skeleton_copy(model)
    new = {key: tensor.detach().clone() for key, tensor in tensors(model).items()}
    for key, axes in keep.items():
        for dim, kept in axes.items() if not key.endswith("running_var") else ():
            blocks = kept if isinstance(kept[0], list) else [kept]
            size = len(new[key]) // len(blocks) if len(blocks) > 1 else len(new[key])
            for block, indices in enumerate(blocks):
                gone = [i for i in range(new[key].shape[int(dim)]) if i not in indices]
                part = new[key][block * size : (block + 1) * size]
                part.index_fill_(int(dim), torch.tensor(gone, dtype=torch.long), 0.0)
    replace_tensors(copy, new)
    return copy


def random_plan(graph: DependencyGraph, seed: int) -> sp.Plan:
    """A plan by random scores, for the share of the MACs (of the parameters, where there are none) nearest to a random
    one that can be met.

    Args:
        graph: What `trace` returns.
        seed: Of the scores and the share; its parity chooses the allocation.

    Returns:
        A plan that removes something.

    Raises:
        Wrong: Nothing can be pruned.
    """
    rng = np.random.default_rng(seed)
    scores = sp.score(graph, lambda group: torch.from_numpy(rng.random(group.units)))
    share = float(rng.uniform(0.2, 0.8))
    while share < 0.999:
        budget: Budget = {"macs": share} if graph.macs() else {"params": share}
        try:
            plan = sp.plan(graph, scores, budget, allocation=("uniform", "global")[seed % 2], max_ratio=1.0, align=1)
        except BudgetError:
            share += 0.3 * (1 - share)
        else:
            if plan.keep:
                return plan
            break
    raise Wrong("nothing can be pruned", str(graph.barriers))
