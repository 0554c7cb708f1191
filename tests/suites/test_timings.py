"""Suites that time networks in onnxruntime: what they record of a tiny one, and what their tables and summaries say."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

import structprune as sp
from structprune.cost.model import by_macs
from structprune.errors import RecipeError
from structprune.plan.alignment import KINDS
from structprune.runtimes import Benchmark, Runtime
from structprune.suites import against_itself, int8, limits, scaling
from structprune.suites.results import Failure, data_of
from tests.example_networks import Chain

X = torch.randn(1, 3, 10, 10)


def shown(table):
    """A table as text, wide enough for every cell."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


class Wide(nn.Sequential):
    """Wide enough for torch-pruning to round to multiples of 16."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 5, 1))


INT8 = int8.Int8Record(
    model="net",
    cut=2.0,
    gate=True,
    notes=[],
    bytes={"dense": 8},
    ms={"dense": 4.0, "slim": 2.5, "dense-int8": 2.0, "slim-int8": 1.25},
    speedup={"slim": 1.6, "dense-int8": 2.0, "slim-int8": 3.2},
    ci95={"slim": (1.5, 1.7)},
    int8_gained=1.6,
    int8_ci95=(1.5, 1.7),
    timing=[],
)


@pytest.mark.thorough
def test_int8_is_measured_on_a_tiny_network():
    record = int8.compare("chain", Chain().eval(), X, Runtime(dtype="int8"), 2, 0.05)
    assert record.gate
    assert record.cut >= 2
    assert list(record.ms) == ["dense", "dense-int8", "slim", "slim-int8"]
    assert record.int8_ci95[0] <= record.int8_gained <= record.int8_ci95[1]
    assert record.bytes["slim"] < record.bytes["dense"]


def test_what_int8_gains_is_told_by_network():
    broken = Failure.of("broken", ValueError("no such\nkernel"))
    records = [INT8, replace(INT8, model="slower", int8_ci95=(0.9, 1.1)), broken]
    assert int8.summary(records) == (
        "slim-int8 is faster than dense-int8 on 1 of 3; int8 alone is faster than pruning alone on 2: net, slower"
    )
    text = shown(int8.table(records))
    assert "1.60× (1.50-1.70)" in text
    assert "0.80" in text  # of the MACs cut
    assert data_of(broken) == {"model": "broken", "error": "ValueError: no such kernel"}
    assert "ValueError: no such kernel" in text


def test_a_network_that_timm_does_not_know_is_a_failure():
    assert int8.measure("no_such_net", 0.05, 1) == Failure("no_such_net", "RuntimeError: Unknown model (no_such_net)")


@pytest.mark.thorough
def test_limits_are_sought_in_four_ways():
    model = Wide().eval()
    cost = by_macs(sp.trace(model, X), 1.0, dict.fromkeys(KINDS, 4), Runtime())
    record = limits.limits_of("wide", model, X, cost, 0.05, 20)
    assert set(record.rows) == {limits.PEER, limits.KNAPSACK, limits.LEVEL, limits.BEST}
    peer = record.rows[limits.PEER]
    assert peer.predicted is None
    assert 1 < peer.cut < 3
    assert peer.efficiency == peer.speedup / peer.cut
    planned = record.rows[limits.KNAPSACK]
    assert planned.cut >= 2
    level = record.rows[limits.LEVEL]
    assert isinstance(level, str) or level.kept >= peer.kept - 1e-9


def test_what_no_search_met_says_why():
    slim = limits.Slim(2.0, 1.9, 1.8, (1.7, 1.85), 0.7)
    text = shown(limits.table(limits.Limits("net", 0.031, {"a": slim, "b": "the search met no widths [at all]"})))
    assert "net: costs off by 3.1 %" in text
    assert "1.80× (1.70-1.85)" in text
    assert "0.90" in text
    assert "the search met no widths [at all]" in text


def benchmark(low, high):
    times = {"ms": {"dense": 2.0, "again": 2.0}, "speedup": {"again": 1.0}, "ci95": {"again": (low, high)}}
    return Benchmark("onnxruntime", 1, 1, 1, 9, **times)


def test_a_network_is_timed_against_itself(tmp_path):
    file = sp.export_onnx(Chain().eval(), X, tmp_path / "chain.onnx")
    (result,) = against_itself.repeats(file, 1, batch=1, threads=1, seconds=0.05, pin=False)
    assert 0.5 < result.speedup["again"] < 2
    results = [benchmark(0.9, 1.1), benchmark(1.01, 1.1), benchmark(0.8, 0.99), benchmark(1.0, 1.2)]
    assert against_itself.summary(results) == "1.00 lies inside the interval in 2 of 4"
    assert against_itself.line(results[0]).endswith("ratio 1.0000, 95 % interval 0.9000 to 1.1000, 9 turns")


def test_a_model_that_timm_does_not_have_can_not_be_exported(tmp_path):
    with pytest.raises(RecipeError, match="unknown model 'resnet19': did you mean"):
        against_itself.export_model("resnet19", tmp_path / "dense.onnx")


def test_depth_is_measured_by_nodes(tmp_path):
    pytest.importorskip("matplotlib")
    points = [
        scaling.measure("chains", nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(depth)]).eval(), X, 2)
        for depth in (3, 6)
    ]
    assert [point.nodes for point in points] == [3, 6]
    assert scaling.line(replace(points[0], trace_s=0.5, plan_s=1.25)) == "chains          3     0.50   166.67    1.25"
    scaling.draw(points, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
