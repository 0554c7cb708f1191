"""What a benchmark reports; how fast anything is, is for tools/ to say."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from rich.text import Text
from torch import nn

import structprune as sp
from structprune.compare import SCHEMA, Comparison, compare_table
from structprune.errors import ModelError, RecipeError
from structprune.ops import Inputs
from structprune.report import benchmark_table
from structprune.report.table import also_rows
from structprune.runtimes import Runtime, environment, latency, time_also, time_layers
from structprune.runtimes.engine import Network
from structprune.runtimes.kernel_layers import RUNTIME, LayerNames
from structprune.runtimes.latency import Benchmark, benchmark_of
from structprune.runtimes.timing_statistics import disturbances, interval_of_median, too_wide
from tests.example_networks import Chain, TwoInputs, randomise


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return sp.export_onnx(randomise(Chain()), torch.randn(1, 3, 10, 10), tmp_path_factory.mktemp("onnx") / "m.onnx")


def test_fields_and_progress(file):
    shares = []
    result = sp.benchmark(
        {"dense": file, "slim": file, "other": file}, batch=2, threads=2, seconds=0.2, rounds=3, progress=shares.append
    )
    assert result.threads == 2
    assert result.batch == 2
    assert result.rounds == 3
    assert result.turns >= 12
    assert set(result.ms) == {"dense", "slim", "other"}
    assert set(result.speedup) == set(result.ci95) == {"slim", "other"}
    assert all(low <= result.speedup[name] <= high for name, (low, high) in result.ci95.items())
    assert "onnxruntime" in result.runtime
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_several_inputs(tmp_path):
    inputs = {"depth": torch.randn(2, 2, 4, 4), "image": torch.randn(2, 3, 4, 4)}
    path = sp.export_onnx(TwoInputs(), inputs, tmp_path / "m.onnx")
    assert sp.benchmark({"a": path, "b": path}, seconds=0.05, rounds=2).turns >= 8


def test_the_interval_covers_the_true_ratio():
    """Noise that rounds share widens the interval: 19 of 20 intervals or so must hold the true median of 2."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        rounds = [2 * np.exp(rng.normal(0, 0.02) + rng.normal(0, 0.05, 40)) for _ in range(8)]
        low, high = interval_of_median(rounds, rng, draws=300)
        covered += low <= 2 <= high
    assert covered >= 51


def test_the_interval_is_that_of_draws_one_by_one():
    """A round may have any number of turns, and brings as many of its own to a draw."""
    rng = np.random.default_rng(1)
    rounds = [np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.05, turns)) for turns in (4, 40, 7, 12, 1)]
    medians = []
    for _ in range(4000):
        drawn = [rounds[i] for i in rng.integers(len(rounds), size=len(rounds))]
        medians.append(np.median(np.concatenate([rng.choice(turns, len(turns)) for turns in drawn])))
    interval = interval_of_median(rounds, rng, draws=4000)
    assert interval == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])), rel=0.01)


def test_what_a_network_takes_with_anothers_weights_in_the_caches_does_not_count(file, monkeypatch):
    """A made-up clock: steady runs take 1 ms and 0.5 ms, the first two after another network 4 ms longer; long ones
    get one run a turn."""
    now, last = [0.0], [None, 0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])

    class Running:
        def __init__(self, steady):
            self.steady = steady

        def run(self):
            last[:] = [self, last[1] + 1] if last[0] is self else [self, 1]
            now[0] += self.steady + 0.004 * (last[1] <= 2)

    for dense, slim in ((0.001, 0.0005), (0.1, 0.05)):
        opened = iter([Running(dense), Running(slim), Running(slim), Running(dense)])
        monkeypatch.setattr(Runtime, "open", lambda *_, opened=opened: next(opened))
        found = sp.benchmark({"dense": file, "slim": file}, seconds=2.0, rounds=2)
        cold = 0.004 if dense == 0.1 else 0.0
        assert found.ms == pytest.approx({"dense": 1e3 * (dense + cold), "slim": 1e3 * (slim + cold)}, abs=0.01)


def test_errors(file, tmp_path):
    with pytest.raises(RecipeError, match="benchmark got no model: give one"):
        sp.benchmark({})
    with pytest.raises(RecipeError, match="batch=8 beside a runtime of 1 and 1: give the runtime alone"):
        sp.benchmark({"dense": file, "slim": file}, batch=8, runtime=Runtime())
    with pytest.raises(RecipeError, match="is not a file"):
        sp.benchmark({"dense": file, "slim": tmp_path / "none.onnx"})
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(RecipeError, match="can't be opened by onnxruntime"):
        sp.benchmark({"dense": file, "slim": tmp_path / "bad.onnx"}, seconds=0.1)


def test_denormals_are_flushed(tmp_path, monkeypatch):
    """Both sessions are opened with the flag; without it, denormal weights slow a model down many times."""
    import onnxruntime

    seen = []
    original = onnxruntime.SessionOptions.add_session_config_entry

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key, value):
            seen.append((key, value))
            original(self, key, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    path = sp.export_onnx(model, torch.randn(1, 3, 4, 4), tmp_path / "m.onnx")
    sp.benchmark({"a": path, "b": path}, seconds=0.02, rounds=2)
    assert seen.count(("session.set_denormal_as_zero", "1")) == 4


def test_what_disturbed_a_timing_is_said():
    rng = np.random.default_rng(0)
    quiet = [np.exp(rng.normal(0, 0.02, 30)) for _ in range(9)]
    assert disturbances(quiet) == []
    neighbour = [turns * np.where(np.arange(30) % 3, 1, 2.5) for turns in quiet]
    assert "other work was running" in disturbances(neighbour)[0]
    throttled = [turns * (1 + 0.04 * i) for i, turns in enumerate(quiet)]
    assert any("x slower while it was timed" in note for note in disturbances(throttled))
    wide = too_wide({"b": 2.0, "c": 4.0}, {"b": (1.95, 2.05), "c": (3.0, 5.0)})
    assert wide == [
        "c's interval of 3.00 to 5.00 is too wide to quote a factor: time for longer, or on a quieter machine"
    ]


def test_any_two_models_can_be_compared_and_a_claim_needs_a_narrow_interval():
    rng = np.random.default_rng(0)
    times = [np.stack([np.full(20, 4.0), np.full(20, 2.0), 1 + 0.01 * rng.random(20)], axis=1) for _ in range(4)]
    result = Benchmark("", 1, 1, 4, 80, {"a": 4, "b": 2, "c": 1}, {"b": 2.0, "c": 4.0}, {"b": (2, 2), "c": (3, 5)})
    result.times = times
    assert result.ratio("a", "b") == (2.0, (2, 2))
    ratio, (low, high) = result.ratio("b", "c")
    assert low <= ratio <= high
    assert ratio == pytest.approx(2 / 1.005, rel=1e-2)
    assert result.verdict("b") == "faster"
    assert result.verdict("c") == "faster, by an uncertain factor"
    result.ci95 |= {"b": (0.98, 1.02), "c": (0.7, 1.3)}
    assert result.verdict("b") == "no difference shown"
    assert "too noisy" in result.verdict("c")
    data = result.to_data()
    assert list(data) == [name for name in vars(result) if name != "times"]
    assert data["ci95"]["c"] == [0.7, 1.3]


def test_a_runtime_that_fails_leaves_its_error_in_its_row():
    model, x = randomise(Chain()), torch.randn(1, 3, 10, 10)

    def networks(runtime):
        if runtime.batch == 2:
            raise ModelError("can't be compiled")
        if runtime.batch == 3:
            raise ValueError("first line\nsecond")
        return {"dense": Network(model, Inputs.of(x)), "slim": Network(model, Inputs.of(x))}

    runtimes = [Runtime(batch=batch, engine="torch") for batch in (2, 3, 1)]
    shares = []
    rows = time_also(runtimes, networks, seconds=0.05, progress=shares.append)
    assert [row.error for row in rows] == ["can't be compiled", "ValueError: first line", None]
    assert rows[0].speedup is rows[0].ci95 is rows[0].dense_ms is None
    assert rows[2].ci95[0] <= rows[2].speedup <= rows[2].ci95[1]
    assert shares[-1] == 1.0
    assert [row[3] for row in also_rows(rows[:2])] == ["can't be compiled", "ValueError: first line"]


def test_what_was_pinned_and_what_was_spent_is_in_the_table():
    result = Benchmark("", 1, 1, 4, 80, {"a": 4, "b": 2}, {"b": 2.0}, {"b": (2, 2)})
    assert "J a pass" not in [column.header for column in benchmark_table(result).columns]
    result.cores, result.joules = [1], {"a": 0.5, "b": 0.25}
    table = benchmark_table(result)
    assert "J a pass" in [column.header for column in table.columns]
    assert "on core 1; joules are the processor's, idle share included" in table.caption


def test_kernels_are_told_by_the_module_that_they_belong_to(file):
    names = LayerNames(file)
    assert names.of("/model/Relu_output_0_nchwc", "Conv") == "conv1"  # with its BatchNorm and ReLU in one kernel
    assert names.of("/model/fc/Gemm", "Gemm") == "fc"
    assert names.of("ReorderOutput after /model/fc/Gemm#2", "ReorderOutput") == RUNTIME
    assert names.of("/model/layer1/layer1.0/layer1.0.3/act/Mul", "Mul") == "layer1.0.3.act"
    assert names.of("/model/model.0/model.0.1/Relu", "Relu") == "0.1"  # in an nn.Sequential
    layers = time_layers({"dense": file, "slim": file}, seconds=0.05)
    assert list(layers) == ["dense", "slim"]
    assert {"conv1", "conv2", "fc"} <= set(layers["dense"])
    assert all(ms >= 0 for ms in layers["dense"].values())


def test_networks_keep_their_own_kernel_times_however_quickly_they_are_opened(tmp_path):
    """onnxruntime names its files by the time, so that two in one folder may be one file."""
    ops = ["Relu", "Sigmoid"]
    for op in ops:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
        graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], op, [x], [y])
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / f"{op}.onnx")
    (tmp_path / "kernels").mkdir()
    sessions = [Runtime().watch(tmp_path / f"{op}.onnx", tmp_path / "kernels") for op in ops]
    files = list((tmp_path / "kernels").rglob("*.json"))
    assert len({file.parent for file in files}) == len(files) == 2
    for session, op in zip(sessions, ops, strict=True):
        session.run()
        assert [kernel.op for run in session.kernels() for kernel in run] == [op]


def _found(**speedups):
    """A benchmark with these speedups and 95 % intervals of a twentieth of them."""
    ci95 = {name: (0.975 * speedup, 1.025 * speedup) for name, speedup in speedups.items()}
    ms = {"dense": 2.0, **{name: 2.0 / speedup for name, speedup in speedups.items()}}
    return Benchmark("onnxruntime 1.20", 1, 1, 8, 80, ms, speedups, ci95)


def test_what_is_slower_than_the_first_is_said_first():
    found = _found(slim=0.8, other=1.5, near=0.99)
    assert str(found).splitlines()[:3] == [
        "slim is slower than dense: 0.80× as fast (95 %: 0.78 to 0.82)",
        "near is no faster than dense: 0.99× as fast (95 %: 0.97 to 1.01)",
        "dense: 2.000 ms",
    ]
    assert str(_found(slim=1.9)).splitlines()[:2] == ["dense: 2.000 ms", "slim: 1.053 ms, 1.90× (95 %: 1.85 to 1.95)"]
    title = benchmark_table(found).title
    assert "slim is slower than dense" in title
    assert "other" not in title
    assert benchmark_table(_found(slim=1.9)).title is None


def test_the_notes_of_a_benchmark_begin_with_what_is_slower():
    turns = np.tile([1.0, 1.25, 0.5], (8, 1))
    found = benchmark_of(Runtime(), ["dense", "slim", "other"], [turns] * 8)
    assert found.notes[0] == "slim is slower than dense: 0.80× as fast (95 %: 0.80 to 0.80)"
    assert not any("other" in note for note in found.notes)


@pytest.mark.parametrize(("speedup", "first"), [(0.8, "slim is slower than dense: 0.80×"), (1.8, "net: model")])
def test_tables_of_comparisons_begin_with_it(speedup, first):
    ci95 = [0.98 * speedup, 1.02 * speedup]
    row = {
        "network": "slim",
        "tool": "structprune",
        "macs": 1,
        "params": 1,
        "ms": 1.0,
        "timing": [],
        "speedup": speedup,
        "ci95": ci95,
        "cut": 2.0,
        "efficiency": 0.4,
        "peak_bytes": 1,
    }
    row |= {"quality": {"pruned": 0.5, "final": 0.9}, "gate": {"passed": True, "max_rel": 0.0}, "seconds": 1.0}
    rows = [row, {"network": "peer", "tool": "torch-pruning", "error": "failed"}]
    result = {"schema": SCHEMA, "model": "net", "runtime": "model", "rows": rows, "notes": [], "metric": "accuracy"}
    result |= {"dense": {"macs": 2, "quality": 0.9}, "kept_by": "l1", "criterion": "l1", "allocation": "uniform"}
    comparison = Comparison.model_validate({**result, "budget": {}, "environment": environment()})
    lines = str(Text.from_markup(str(compare_table(comparison).title))).splitlines()
    assert lines[0].startswith(first)
    assert lines[-1] == "net: model"
