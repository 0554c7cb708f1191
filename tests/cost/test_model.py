"""The fit against a made-up runtime whose costs are known, and against onnxruntime's own shapes."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.cost import cache, learn_cost, learning
from structprune.cost.cache import cached
from structprune.cost.cached_records import DenseEntry, ProbesEntry
from structprune.cost.model import fit
from structprune.cost.probes import Probe, Timings, design, measure_probes
from structprune.errors import BudgetError
from structprune.graph.fingerprint import fingerprint
from structprune.graph.layers import KINDS
from structprune.plan import choices
from structprune.runtimes import Runtime
from structprune.runtimes.engine import Kernel

from ..example_networks import Chain

X = torch.randn(1, 3, 10, 10)


class Wide(Chain):
    """Chain with 64 and 48 channels."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.fc = nn.Conv2d(64, 48, 1), nn.Linear(48, 5)


def options(graph, align=1):
    return choices(graph.groups, {g.name: np.ones(g.units) for g in graph.groups}, 1, 0.9, align, ())


def padded(width, block=4):
    return -(-width // block) * block


def made_up(widths):
    """A runtime that pads to 4 and takes, for Wide, so many microseconds a kernel."""
    c1, c2 = padded(widths["conv1"]), padded(widths["conv2"])
    kernels = (
        Kernel("conv1", "Conv", "conv1", ((1, 3, 10, 10), (c1, 3, 3, 3)), ((1, c1, 10, 10),), 5 + 0.002 * c1 * 2700),
        Kernel(
            "conv2", "Conv", "conv2", ((1, c1, 10, 10), (c2, c1, 1, 1)), ((1, c2, 10, 10),), 3 + 0.004 * c1 * c2 * 100
        ),
        Kernel("pool", "GlobalAveragePool", "pool", ((1, c2, 10, 10),), ((1, c2, 1, 1),), 1 + 0.03 * c2 * 100),
        Kernel("fc", "Gemm", "fc", ((1, widths["conv2"]), (5, widths["conv2"])), ((1, 5),), 2.0),
        Kernel("shape", "Shape", "shape", ((1, c2),), ((2,),), 4.0),
    )
    return Probe(widths, 1.1 * sum(k.microseconds for k in kernels) / 1e3 + 0.02, kernels)


@pytest.mark.parametrize("watching", [0.0, 10.0])
def test_a_known_runtime_is_learned_exactly_at_widths_that_no_probe_had(watching):
    """Also where each kernel takes so many microseconds longer for being watched, and whole runs do not."""
    graph = sp.trace(Wide(), X)
    probes = [made_up(widths) for widths in design(options(graph), 12)]
    slower = [tuple(dataclasses.replace(k, microseconds=k.microseconds + watching) for k in p.kernels) for p in probes]
    probes = [dataclasses.replace(p, kernels=kernels) for p, kernels in zip(probes, slower, strict=True)]
    model = fit(graph, probes, probes[0].ms, multiples={})
    seen = {tuple(p.widths.items()) for p in probes}
    unseen = [{"conv1": a, "conv2": b} for a in range(7, 65, 3) for b in range(5, 49, 4)]
    unseen = [w for w in unseen if tuple(w.items()) not in seen]
    assert len(unseen) > 30
    for widths in unseen:
        assert model.at(widths, graph) == pytest.approx(made_up(widths).ms, rel=1e-3)
    assert model.error < 0.01
    fixed = 1.1 * (5 + 3 + 1 + 2 + 4) / 1e3 + 0.02  # what made_up's kernels take at no width, and its base
    assert model.fixed == pytest.approx(fixed / probes[0].ms, rel=0.02)
    assert model.unmatched == 0


def test_channels_made_in_sets_of_32_are_learned():
    """Sizes are padded to 4, times go up from one set to the next."""
    graph = sp.trace(Wide(), X)

    def in_sets(widths):
        probe = made_up(widths)
        c1, c2 = padded(widths["conv1"]), padded(widths["conv2"])
        slower = 0.4 * c1 * (padded(c2, 32) - c2)
        kernels = [
            dataclasses.replace(k, microseconds=k.microseconds + slower * (k.name == "conv2")) for k in probe.kernels
        ]
        return dataclasses.replace(probe, ms=probe.ms + 1.1 * slower / 1e3, kernels=tuple(kernels))

    probes = [in_sets(widths) for widths in design(options(graph), 16)]
    model = fit(graph, probes, probes[0].ms, multiples={})
    assert in_sets({"conv1": 64, "conv2": 36}).ms > 1.5 * in_sets({"conv1": 64, "conv2": 32}).ms
    for widths in ({"conv1": a, "conv2": b} for a in range(7, 65, 3) for b in range(5, 49, 4)):
        assert model.at(widths, graph) == pytest.approx(in_sets(widths).ms, rel=1e-3)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"speedup": 1.8}, cost=model, allocation="knapsack", align=1)
    assert plan.widths["conv2"] == 32


def test_sizes_that_follow_no_axis_are_told():
    graph = sp.trace(Wide(), X)
    probes = []
    for number, widths in enumerate(design(options(graph), 12)):
        made = made_up(widths)
        odd = Kernel("odd", "Mystery", "odd", ((7 + number * number,),), ((7 + number * number,),), 50.0)
        probes.append(dataclasses.replace(made, kernels=(*made.kernels, odd), ms=made.ms + 0.055))
    model = fit(graph, probes, probes[0].ms, multiples={})
    assert 0 < model.unmatched < 1


def test_probes_spread_each_group_over_its_choices():
    graph = sp.trace(Wide(), X)
    made = design(options(graph), 8)
    assert made[0] == {"conv1": 64, "conv2": 48}
    assert made[-1] == {"conv1": 7, "conv2": 5}
    assert len({w["conv1"] for w in made}) == 8
    assert design(options(graph), 8) == made


@pytest.mark.thorough
def test_every_kernel_of_onnxruntime_is_matched_with_the_graph():
    graph = sp.trace(Wide(), X)
    timings = measure_probes(graph, design(options(graph, align=8), 6), runtime=Runtime(), seconds=0.1)
    model = fit(graph, timings.probes, timings.dense_ms, multiples={})
    assert {kernel.op for kernel in model.kernels} >= {"Conv"}
    assert model.unmatched == 0
    assert model.at({"conv1": 64, "conv2": 48}, graph) > 0


def test_measurements_are_kept_and_read_again(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(learning, "measure_multiples", lambda runtime, **_: {kind: [2] for kind in KINDS})
    graph = sp.trace(Wide(), X)
    first = learn_cost(graph, probes=4, seconds=0.1)
    monkeypatch.setattr(learning, "measure_probes", None)
    again = learn_cost(sp.trace(Wide(), X), probes=4, seconds=0.1)
    assert again.dense_ms == first.dense_ms
    assert again.at({"conv1": 4, "conv2": 4}, graph) == first.at({"conv1": 4, "conv2": 4}, graph)
    (probes,) = tmp_path.glob("probes-*.json")
    entry = json.loads(probes.read_text())
    entry["value"]["probes"][1]["widths"]["conv1"] += 1  # sound, and not what is asked for
    probes.write_text(json.dumps(entry))
    with pytest.raises(TypeError):  # measures anew, by what is None now
        learn_cost(graph, probes=4, seconds=0.1)
    for path in tmp_path.iterdir():
        path.write_text("{ broken")
    assert cached(DenseEntry, {"a": 1}, lambda: 7.5) == 7.5
    with pytest.raises(TypeError):  # measures anew, by what is None now
        learn_cost(graph, probes=4, seconds=0.1)


def _with(entry, place, value):
    """The entry with one value in place of another."""
    edited = json.loads(json.dumps(entry))
    *way, last = place
    inner = edited["value"]
    for key in way:
        inner = inner[key]
    inner[last] = value
    return edited


def test_a_cache_file_that_was_edited_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    timings = Timings([made_up({"conv1": 64, "conv2": 48})], 2.5)
    cache.keep(ProbesEntry, {"a": 1}, timings)
    assert cache.held(ProbesEntry, {"a": 1}) == timings
    (path,) = tmp_path.iterdir()
    entry = json.loads(path.read_text())
    for place, value in [
        (["dense_ms"], -1.0),
        (["dense_ms"], "2.5"),
        (["probes", 0, "ms"], float("nan")),
        (["probes", 0, "widths", "conv1"], 0),
        (["probes", 0, "widths", "conv1"], 64.0),
        (["probes", 0, "kernels", 0, "microseconds"], float("inf")),
        (["probes", 0, "kernels", 0, "inputs"], [["1"]]),
        (["probes", 0], {"ms": 1.0}),
    ]:
        path.write_text(json.dumps(_with(entry, place, value)))
        assert cache.held(ProbesEntry, {"a": 1}) is None, (place, value)
    path.write_text(json.dumps({**entry, "key": {}}))
    assert cache.held(ProbesEntry, {"a": 1}) is None
    path.write_text(json.dumps(entry))
    assert cache.held(ProbesEntry, {"a": 1}) == timings


def test_budgets_of_latency_are_met_as_predicted():
    graph = sp.trace(Wide(), X)
    probes = [made_up(widths) for widths in design(options(graph), 12)]
    cost = fit(graph, probes, probes[0].ms, multiples={})
    scores = sp.score(graph, "l1")
    plan = sp.plan(graph, scores, {"speedup": 1.5}, cost=cost, align=1)
    assert plan.latency["dense"] == probes[0].ms
    assert plan.latency["slim"] == pytest.approx(made_up(plan.widths).ms, rel=1e-3)
    assert plan.latency["slim"] <= probes[0].ms / 1.5
    same = sp.plan(graph, scores, {"latency_ms": probes[0].ms / 1.5}, cost=cost, align=1)
    assert same.widths == plan.widths
    both = sp.plan(graph, scores, {"speedup": 1.2, "macs": 0.3}, cost=cost, align=1)
    assert both.macs["slim"] <= 0.3 * both.macs["dense"]
    with pytest.raises(BudgetError, match=r"budget speedup 50 .* can't be met.* Ask for speedup <= \d"):
        sp.plan(graph, scores, {"speedup": 50}, cost=cost, align=1)
    with pytest.raises(BudgetError, match=r"budget speedup needs the runtime's costs: give cost="):
        sp.plan(graph, scores, {"speedup": 2}, align=1)
    with pytest.raises(BudgetError, match=r"speedup=0\.5 would be slower than dense"):
        sp.plan(graph, scores, {"speedup": 0.5}, cost=cost, align=1)


def test_kernels_that_not_every_probe_has_are_left_to_the_base_and_told():
    graph = sp.trace(Wide(), X)
    probes = [made_up(widths) for widths in design(options(graph), 16)]
    reorder = Kernel("ReorderInput after conv1", "ReorderInput", "(runtime)", ((1, 9),), ((1, 9),), 20.0)
    probes = [dataclasses.replace(p, kernels=(*p.kernels, reorder), ms=p.ms + 0.022) for p in probes[:-1]] + probes[-1:]
    model = fit(graph, probes, probes[0].ms, multiples={})
    assert {kernel.name for kernel in model.kernels} >= {"conv1", "ReorderInput after conv1"}
    assert 0 < model.unmatched < 0.2
    assert model.error < 0.05


def test_int8_and_transposed_kernels_go_with_the_product_of_their_channels():
    """Those show no weights as they were: the sizes of inputs and outputs have to do."""
    graph = sp.trace(Wide(), X)
    probes = []
    for widths in design(options(graph), 14):
        c1, c2 = widths["conv1"], widths["conv2"]
        kernel = Kernel(
            "conv2", "QLinearConv", "conv2", ((1, c1, 10, 10), (), ()), ((1, c2, 10, 10),), 2 + 0.004 * c1 * c2 * 100
        )
        probes.append(Probe(widths, kernel.microseconds / 1e3, (kernel,)))
    model = fit(graph, probes, probes[0].ms, multiples={})
    expected = (2 + 0.004 * 24 * 20 * 100) / 1e3
    assert model.at({"conv1": 24, "conv2": 20}, graph) == pytest.approx(expected, rel=1e-3)


def test_the_cache_tells_networks_apart_and_does_without_a_folder(monkeypatch, tmp_path):
    wider = Wide()
    wider.conv1.padding, wider.conv1.dilation = (2, 2), (2, 2)  # the same shapes
    identities = [fingerprint(graph) for graph in (sp.trace(Wide(), X), sp.trace(wider, X))]
    identities.append(fingerprint(sp.trace(Wide().double(), X.double())))
    assert len(set(identities)) == 3
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(blocked / "folder"))
    assert cached(DenseEntry, {"a": 1}, lambda: 7.5) == 7.5


def test_processors_of_one_name_are_told_apart_by_their_instructions(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    machine = cache.environment()
    for made, instructions in ((1.0, "avx2"), (2.0, "avx2 avx512f"), (1.0, "avx2")):
        monkeypatch.setattr(cache, "environment", lambda i=instructions: machine.model_copy(update={"instructions": i}))
        assert cached(DenseEntry, {"a": 1}, lambda made=made: made) == made
    assert len(list(tmp_path.iterdir())) == 2
