"""What a child process does with one network: `python -m structprune.suites.preparation.tasks`."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import structprune as sp

from ...compare.peer import prune_by_ratio, without_fused_attention
from ...errors import BudgetError
from ...ops import Inputs, capture
from ..beside_peer import OURS, THEIRS, prune_by_plan
from ..planning import smallest_budget
from ..pool import Record
from ..timm_models import build, example
from ..worker import Notes, error_line, serve
from .records import CAPTURE, DONE, TRACE

SHARE = 0.5  # of the MACs that stay; of each layer's channels that torch-pruning takes


def prepare(task: Record, notes: Notes) -> str:
    """Builds a timm model with random weights and times its preparation."""
    with notes.stage("build"):
        model = build(task["model"], "cpu", seed=0)
        x = example(model, "cpu", seed=0)
    time_preparation(model, x, task["workloads"], task["repeats"], task["attn_dim"], notes)
    return DONE


def time_preparation(
    model: nn.Module, x: Tensor, workloads: Sequence[str], repeats: int, attn_dim: bool, notes: Notes
) -> None:
    """Times what is asked for, in turns, each on a fresh copy; first runs do not count.

    Args:
        model: The dense network, which stays as it is.
        x: One image, as a batch.
        workloads: Some of `records.WORKLOADS`.
        repeats: Turns that are timed.
        attn_dim: Whether `attn_dim` of attention layers is mended after torch-pruning too.
        notes: Where nodes, budget, errors and the seconds of the turns are noted. What a tool raises in its first run
            is an error of the record, and it takes no turns.
    """
    record = notes.record
    record.update(nodes=None, budget=None, errors={}, turns={})
    ways: dict[str, Callable[[nn.Module], Any]] = {
        CAPTURE: lambda network: capture(network, Inputs.of(x)),
        TRACE: lambda network: sp.trace(network, x),
        OURS: lambda network: prune_by_plan(network, x, 1 - record["budget"], 1),
        THEIRS: lambda network: prune_by_ratio(network, x, SHARE, attn_dim=attn_dim),
    }
    for name in workloads:
        with notes.stage(name):
            try:
                if name == OURS:
                    record["budget"] = reachable(model, x)
                result = ways[name](fresh(model, name))
                if name == TRACE:
                    record["nodes"] = result.nodes
                elif name == THEIRS:
                    check_shapes(model, result, x)
                record["turns"][name] = []
            except Exception as error:  # what a tool raises is part of the comparison, whatever it is
                record["errors"][name] = error_line(error)
    for turn in range(repeats):
        for name in list(record["turns"])[:: -1 if turn % 2 else 1]:
            with notes.stage(name):
                network = fresh(model, name)
                gc.collect()  # or one tool pays for the other's cycles
                start = time.perf_counter()
                ways[name](network)
                record["turns"][name].append(time.perf_counter() - start)


def fresh(model: nn.Module, name: str) -> nn.Module:
    """A copy of the network, as what is timed takes it."""
    return without_fused_attention(model) if name == THEIRS else copy.deepcopy(model)


def reachable(model: nn.Module, x: Tensor) -> float:
    """`SHARE`, or the smallest share of the MACs over it that a plan can meet."""
    graph = sp.trace(model, x)
    scores = sp.score(graph, "group_l1")
    try:
        sp.plan(graph, scores, {"macs": SHARE}, align=1)
    except BudgetError as error:
        return min(smallest_budget(graph, scores, 0.0, error) + 1e-9, 1.0)  # 1 - (1 - budget) may lose a bit
    return SHARE


def check_shapes(model: nn.Module, slim: nn.Module, x: Tensor) -> None:
    """Checks that a network which torch-pruning made runs.

    Args:
        model: The dense network.
        slim: What was made of it.
        x: One image, as a batch.

    Raises:
        RuntimeError: Its outputs have other shapes than the dense network's.
        Exception: Whatever a broken network raises.
    """
    with torch.no_grad():
        shapes, expected = ([tuple(leaf.shape) for leaf in pytree.tree_leaves(network(x))] for network in (slim, model))
    if shapes != expected:
        raise RuntimeError(f"the pruned network's output is {shapes} instead of {expected}")


if __name__ == "__main__":
    serve({"prepare": prepare})
