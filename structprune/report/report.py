"""report.json: a flat, versioned record of one run. Its fields are documented in docs/report.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ..cost import CostModel
from ..graph import DependencyGraph, Group, count_group
from ..plan.alignment import aligned
from ..recipe import Recipe, RuntimeSpec
from ..records import Plan
from ..runtimes import Benchmark
from ..verify import Gate

SCHEMA = "structprune.report/1"


def build_report(
    recipe: Recipe,
    graph: DependencyGraph,
    plan: Plan,
    gates: dict[str, Gate],
    quality: dict[str, Any],
    counts: dict[str, dict[str, int] | None],
    sizes: dict[str, int],
    recovery: list[dict[str, Any]],
    latency: Benchmark | None,
    layers: dict[str, dict[str, float]] | None,
    int8: dict[str, dict[str, Any]],
    also: list[dict[str, Any]],
    environment: dict[str, Any],
    opset: int,
) -> dict[str, Any]:
    """`gates` holds `final`, and `pruned` (the network as cut) where it was recovered or fine-tuned since; `int8` the
    quality and size of `dense-int8` and `slim-int8`, if they were made; `also` is `time_also`'s."""
    final = gates["final"]
    return {
        "schema": SCHEMA,
        "model": {"name": recipe.model.name, **recipe.model.model_dump(mode="json")},
        "criterion": plan.criterion,
        "allocation": plan.allocation,
        "budget": plan.budget,
        "search": None,  # of a budget within a bound of quality
        "constraints": plan.constraints,
        "form": graph.form,
        "notes": plan.notes,
        "macs": {**_cut(plan.macs), "by_operator": plan.macs_by_operator, "fvcore": counts},
        "params": _cut(plan.params),
        "onnx": {"opset": opset, "dense_bytes": sizes.get("dense"), "slim_bytes": sizes.get("slim")},
        "latency": None if latency is None else _latency(latency, plan, recipe.runtime),
        "int8": _int8(int8, latency, quality, sizes),
        "also": also,
        "planned_latency": plan.latency,
        "layers": _layers(layers),
        "quality": quality,
        "recovery": recovery,
        "gate": {
            **final.to_dict(),
            "passed": all(gate.passed for gate in gates.values()),
            "before_finetuning": gates["pruned"].to_dict() if "pruned" in gates else None,
        },
        "barriers": [asdict(barrier) for barrier in graph.barriers],
        "groups": describe_groups(graph, plan),
        "environment": environment,
    }


def describe_groups(graph: DependencyGraph, plan: Plan | None = None) -> list[dict[str, Any]]:
    """What `structprune inspect` and the report say of each group."""
    result = []
    for group in graph.groups:
        entry = {
            "name": group.name,
            "channels": group.channels,
            "units": group.units,
            **count_group(graph, group),
            "kind": _kind(group),
        }
        if plan is not None and group.name in plan.groups:
            entry["kept_channels"] = group.channels_of(len(plan.groups[group.name]["kept"]))
        elif plan is not None:  # composed of plans that do not tell
            kept = plan.keep.get(group.leading.key, {}).get(str(group.leading.dim))
            entry["kept_channels"] = group.channels if kept is None else len(np.ravel(kept))
        result.append(entry)
    return result


def describe_graph(graph: DependencyGraph) -> dict[str, Any]:
    """What `structprune inspect --format json` prints."""
    return {
        "form": graph.form,
        "nodes": graph.nodes,
        "macs": graph.macs(),
        "params": graph.params(),
        "groups": describe_groups(graph),
        "barriers": [asdict(barrier) for barrier in graph.barriers],
        "whole": graph.whole_layers,
    }


def _kind(group: Group) -> str:
    """Whether removing channels is masking them with zero, always or without a batch's statistics."""
    if not group.exact:
        return "statistic-changing"
    return "exact" if group.exact_in_training else "exact in evaluation"


def describe_cost(graph: DependencyGraph, cost: CostModel) -> dict[str, Any]:
    """What `structprune profile --format json` prints."""
    multiples = aligned(graph, cost.steps)
    return {
        "runtime": cost.runtime.name,
        "dense_ms": cost.dense_ms,
        "steps": cost.steps,
        "probes": cost.probes,
        "error": cost.error,
        "unmatched": cost.unmatched,
        "fixed": cost.fixed,
        "kernels": [{"name": k.name, "layer": k.layer, "op": k.op, "ms": k.dense_ms} for k in cost.kernels],
        "groups": [{"name": g.name, "channels": g.channels, "step": multiples[g.name]} for g in graph.groups],
    }


def _cut(counts: dict[str, int]) -> dict[str, Any]:
    return {**counts, "cut": counts["dense"] / counts["slim"]}


def _layers(layers: dict[str, dict[str, float]] | None) -> list[dict[str, Any]]:
    """Where the time goes, in the order of the dense network; what only the slim one has comes last."""
    if layers is None:
        return []
    names = list(dict.fromkeys([*layers["dense"], *layers["slim"]]))
    return [{"layer": n, "dense_ms": layers["dense"].get(n, 0.0), "slim_ms": layers["slim"].get(n, 0.0)} for n in names]


def _int8(
    int8: dict[str, dict[str, Any]], latency: Benchmark | None, quality: dict[str, Any], sizes: dict[str, int]
) -> list[dict[str, Any]]:
    """Dense and slim, in float32 and int8, side by side; empty if there is no int8."""
    if not int8 or latency is None:
        return []
    kl = quality.get("kl", {})
    rows = {
        "dense": {"quality": quality["dense"], "kl": kl.get("dense"), "bytes": sizes["dense"]},
        "slim": {"quality": quality["final"], "kl": kl.get("final"), "bytes": sizes["slim"]},
        **int8,
    }
    return [
        {
            "network": name,
            **row,
            **_speed(latency, name),
        }
        for name, row in rows.items()
    ]


def _speed(latency: Benchmark, name: str) -> dict[str, Any]:
    if name not in latency.ms:  # int8 where the runtime's engine is torch's
        return {"ms": None, "speedup": None, "ci95": None}
    interval = latency.ci95.get(name, (1.0, 1.0))
    return {"ms": latency.ms[name], "speedup": latency.speedup.get(name, 1.0), "ci95": list(interval)}


def _latency(latency: Benchmark, plan: Plan, runtime: RuntimeSpec) -> dict[str, Any]:
    """Of the networks that the plan was made for: dense and slim in float32, or both in int8.

    `efficiency` is speedup ÷ MACs cut: 1 where the slim network does as many MACs a second as the dense one.
    """
    suffix = "-int8" if runtime.dtype == "int8" else ""
    dense, slim = latency.ms["dense" + suffix], latency.ms["slim" + suffix]
    joules = latency.joules
    speedup, interval = latency.ratio("dense" + suffix, "slim" + suffix)
    return {
        "runtime": latency.runtime,
        "engine": runtime.engine,
        "device": runtime.device,
        "dtype": runtime.dtype,
        "threads": latency.threads,
        "batch": latency.batch,
        "rounds": latency.rounds,
        "turns": latency.turns,
        "dense_ms": dense,
        "slim_ms": slim,
        "speedup": speedup,
        "ci95": list(interval),
        "notes": latency.notes,
        "cores": latency.cores,
        "joules": joules and {"dense": joules["dense" + suffix], "slim": joules["slim" + suffix]},
        "efficiency": speedup * plan.macs["slim"] / plan.macs["dense"],
        "gmacs_per_second": {
            "dense": plan.macs["dense"] * latency.batch / dense / 1e6,
            "slim": plan.macs["slim"] * latency.batch / slim / 1e6,
        },
    }
