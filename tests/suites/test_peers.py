"""Both tools on a tiny network, and what the table and the file say of it."""

import json

import pytest
import torch
from rich.console import Console

from structprune.runtimes import Benchmark
from structprune.suites.beside_peer import OURS, THEIRS, machine
from structprune.suites.peers import comparison
from structprune.suites.peers.comparison import compare_network
from structprune.suites.peers.records import Comparison, Settings, ToolResult
from structprune.suites.peers.report import machine_lines, remarks, table
from tests.example_networks import Chain

X = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))
TIMED = Benchmark("a runtime", 1, 1, 2, 9, {"dense": 2.0, OURS: 1.0}, {OURS: 2.0}, {OURS: (1.9, 2.1)})


@pytest.fixture
def timed(monkeypatch):
    """No timing: a benchmark of structprune's network alone."""
    monkeypatch.setattr(comparison.sp, "benchmark", lambda files, **_: TIMED)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Chain().eval()
    model.num_classes = 5  # torch-pruning's graph leaves a layer of so many outputs
    return model


def shown(*comparisons):
    console = Console(width=150)
    with console.capture() as capture:
        console.print(table(comparisons, Settings()))
    return capture.get()


def test_a_tiny_network_is_pruned_by_both_and_timed_in_turns(model, timed):
    record = compare_network("chain", model, X, Settings(repeats=2))
    assert (record.model, record.input, record.params) == ("chain", (3, 10, 10), 321)
    for result in record.results:
        assert result.error == ""
        assert 0.3 < result.macs / record.macs < 0.7
        assert result.params < record.params
        assert len(result.prepare_s) == 2
    assert (record.ours.gate, record.ours.ratio) == (True, None)
    assert (record.theirs.gate, record.theirs.speedup) == (None, None)
    assert 0 < record.theirs.ratio < 1
    assert len(record.prepare_ratios) == 2
    assert (record.ours.ms, record.ours.speedup, record.ours.ci95) == (1.0, 2.0, (1.9, 2.1))
    assert model.conv1.out_channels == 8
    preparation, search = remarks(record)
    assert preparation.startswith(f"chain: preparation by {THEIRS} took ")
    assert "(median of 2 paired turns, " in preparation
    assert f"finding {THEIRS}'s ratio 0." in search
    data = json.loads(json.dumps(record.to_data()))
    assert data["dense"] == {"macs": record.macs, "params": 321}
    assert [result["tool"] for result in data["results"]] == [OURS, THEIRS]
    assert list(data["results"][0]) == [
        *("tool", "macs", "params", "gate", "ratio", "search_s", "prepare_s", "ms", "speedup", "ci95", "error")
    ]
    assert data["benchmark"]["ms"] == {"dense": 2.0, OURS: 1.0}


def test_what_a_tool_raises_stands_in_its_row(model, timed, monkeypatch):
    def broken(*_):
        raise IndexError("index [256] is\nout of bounds")

    monkeypatch.setattr(comparison, "search_ratio", broken)
    record = compare_network("chain", model, X, Settings(repeats=1))
    assert record.theirs == ToolResult(THEIRS, error="prune: IndexError: index [256] is out of bounds")
    assert record.ours.gate
    assert (len(record.ours.prepare_s), record.prepare_ratios, remarks(record)) == (1, [], [])
    assert "index [256] is out of bounds" in shown(record)


def test_a_plan_that_can_not_be_made_and_files_that_can_not_be_timed_are_errors_of_the_record(model, monkeypatch):
    def broken(files, **_):
        raise ValueError("no session")

    monkeypatch.setattr(comparison.sp, "benchmark", broken)
    record = compare_network("chain", model, X, Settings(cut=0.999, repeats=1))
    assert record.ours.error.startswith("prune: BudgetError: ")
    assert (record.ours.prepare_s, record.theirs.error) == ([], "")
    assert (record.benchmark, record.benchmark_error) == (None, "benchmark: ValueError: no session")
    assert record.theirs.ms is None
    assert "benchmark: ValueError: no session" in shown(record)


def test_the_table_tells_dense_numbers_and_factors():
    ours = ToolResult(OURS, 50_000_000, 1_000_000, False, None, None, [0.5, 0.25, 0.75], 1.0, 2.0, (1.9, 2.1))
    theirs = ToolResult(THEIRS, 40_000_000, 2_000_000, ratio=0.3, search_s=4.0, prepare_s=[0.25, 0.25, 0.75])
    record = Comparison("net", (3, 8, 8), 100_000_000, 4_000_000, ours, theirs, TIMED)
    lines = [" ".join(line.replace("│", " ").split()) for line in shown(record).splitlines()]
    assert lines[0] == "50 % of the MACs to be cut, align 1, 1 thread"
    assert lines[4:7] == [
        "net dense 100 M 4.00 M - - 2.00 ms -",
        f"{OURS} ÷ 2.000 ÷ 4.000 failed 0.50 s 1.00 ms 2.00× (1.90 to 2.10)",
        f"{THEIRS} ÷ 2.500 ÷ 2.000 - 0.25 s - -",
    ]
    assert remarks(record)[0] == (
        f"net: preparation by {THEIRS} took 1.00× as long as by {OURS} (median of 3 paired turns, 0.50 to 1.00)"
    )


def test_the_machine_is_two_lines():
    place, packages = machine_lines(machine())
    assert " cores, " in place
    assert f"{THEIRS} " in packages
