"""A recipe by structprune and torch-pruning: what was kept by hand-made oracles, one whole comparison, bad input."""

import functools
import importlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.compare import Comparison, as_fast, compare, compare_table, draw, table
from structprune.compare.as_fast import FOR_SPEED, row_as_fast, with_speedup
from structprune.compare.importance import planned_indices, share_kept
from structprune.compare.our_run import graph_and_scores, with_trained_network
from structprune.compare.peak_memory import PeakMemory
from structprune.compare.peer import (
    distinct,
    kept_indices,
    prune_by_ratio,
    search_ratio,
    total_macs,
    without_fused_attention,
    zeroed,
)
from structprune.compare.peer_settings import settings_of
from structprune.compare.records import CutRow, RowGate
from structprune.compare.timing import converted_file
from structprune.cost import learning
from structprune.errors import PlanError, RecipeError, StoreError
from structprune.graph.layers import KINDS
from structprune.models import build_model
from structprune.plan import ALLOCATIONS
from structprune.progress import Reporter
from structprune.recipe import ModelSpec, check_recipe
from structprune.run import held
from structprune.runtimes import Benchmark, Runtime
from tests.run.small_network import short_turns

places = {"learn_cost": "structprune.run.stages.costs", "plan_measured": "structprune.run.stages.planning"}
RECIPE = {
    "model": {"name": "resnet10t", "kwargs": {"in_chans": 1, "num_classes": 10}},
    "data": {"source": "digits"},
    "train": {"epochs": 1, "lr": 2e-3},
    "prune": {"budget": {"macs": 0.5}, "align": 8},
    "bench": {"seconds": 0.5},
}
SMALL = {
    **RECIPE,
    "model": {"source": "tests.run.small_network:Small", "kwargs": {"width": 64}},
    "data": {"source": "digits", "image_size": 16},
    "train": {"epochs": 1, "batch_size": 128, "lr": 0.02},
    "bench": {"seconds": 0.05},
}


@pytest.fixture(scope="module", autouse=True)
def _short_turns():
    with short_turns():
        yield


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """What widths cost, and how fast a planned network is, measured in seconds."""
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")
    monkeypatch.setattr(learning, "measure_multiples", lambda *_, **__: {kind: [16] for kind in KINDS})
    sooner = {"learn_cost": {"probes": 5, "seconds": 0.1}, "plan_measured": {"seconds": 0.1, "rounds": 1}}
    for name, options in sooner.items():
        module = importlib.import_module(places[name])
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), **options))


def peer_timed_as(monkeypatch, speedup):
    """torch-pruning's network, alone beside the dense one, as if it had been measured so fast."""

    def timed(networks, *arguments):
        assert networks == ["torch-pruning-8"]
        interval = (speedup - 0.1, speedup + 0.1)
        measured = {"speedup": {networks[0]: speedup}, "ci95": {networks[0]: interval}, "ms": {}}
        return Benchmark("onnxruntime", threads=1, batch=1, rounds=1, turns=1, **measured)

    monkeypatch.setattr(as_fast, "time_networks", timed)


def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    model = nn.Sequential(*layers).eval()
    model.num_classes = 4  # whose outputs stay
    return model, torch.randn(2, 3, 12, 12)


def test_the_allocation_that_stands_in_for_a_speed_weighs_costs_and_needs_no_images():
    allocation = ALLOCATIONS[FOR_SPEED]
    assert allocation.for_speed
    assert "scan" not in allocation.needs


def test_what_torch_pruning_kept_is_found_and_the_zeroed_dense_network_equals_it():
    model, x = small()
    dense = distinct(model, 1e-9).eval()
    slim = prune_by_ratio(distinct(small()[0], 0.0), x[:1].double(), 0.5)
    with pytest.raises(PlanError):
        kept_indices(dense, slim)  # other values: no slice of it
    torch.manual_seed(0)
    slim = prune_by_ratio(small()[0], x[:1], 0.5)
    kept = kept_indices(small()[0], slim)
    norms = small()[0][0].weight.detach().abs().sum((1, 2, 3)).numpy()
    assert [len(axis) for axis in kept["0.weight"]] == [4, 3, 3, 3]
    assert list(kept["2.weight"][1]) == list(kept["0.weight"][0])
    assert len(norms[kept["0.weight"][0]]) == 4
    with torch.no_grad():
        assert torch.allclose(zeroed(small()[0], kept)(x), slim(x), atol=1e-6)
    kept["2.weight"][1] = np.arange(8)  # the wrong claim shows
    kept["0.weight"][0] = np.roll(np.arange(8), 1)[:4]
    with torch.no_grad():
        assert not torch.allclose(zeroed(small()[0], kept)(x), slim(x), atol=1e-4)


def test_the_ratio_is_searched_for_that_comes_nearest_to_the_macs():
    model, x = small()
    target = total_macs(model, x[:1]) // 2
    found = search_ratio(model, x[:1], target, 1)
    macs = {r: total_macs(prune_by_ratio(small()[0], x[:1], r), x[:1]) for r in (found, *np.linspace(0.05, 0.95, 19))}
    assert abs(macs[found] - target) == min(abs(m - target) for m in macs.values())
    assert search_ratio(model, x[:1], total_macs(model, x[:1]), 1) == 0.0


def test_attention_counts_whether_it_is_fused_or_not():
    model = build_model(ModelSpec(name="test_vit"), 0)
    x = torch.zeros(1, 3, 160, 160)
    fused = [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")]
    assert all(fused)
    assert total_macs(model, x) == total_macs(without_fused_attention(model), x) == sp.trace(model, x).macs()
    assert [m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")] == fused


def test_importance_kept_is_the_geometric_mean_of_the_groups_shares():
    model, x = small()
    graph = sp.trace(model, x[:1])
    scores = sp.score(graph, "l1")
    assert [g.name for g in graph.groups] == ["0", "2"]
    first, second = (scores.values[name] for name in ("0", "2"))
    kept = {("0.weight", 0): [np.array([1, 5])], ("2.weight", 1): [np.array([1, 5])]}
    expected = (first[[1, 5]].sum() / first.sum()) ** 0.5
    assert share_kept(graph, scores, kept) == pytest.approx(expected)
    kept[("2.weight", 0)] = [np.array([0])]
    expected *= (second[0] / second.sum()) ** 0.5
    assert share_kept(graph, scores, kept) == pytest.approx(expected)
    assert share_kept(graph, scores, {}) == 1.0


def test_blocks_of_a_grouped_transposed_layer_keep_their_own():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = sp.trace(nn.Sequential(*layers).eval(), torch.randn(1, 3, 6, 6))
    scores = sp.score(graph, "l1")
    plan = sp.plan(graph, scores, {"macs": 0.5}, align=1)
    expected = []
    for group in graph.groups:
        values = scores.values[group.name]
        expected.append(values[plan.groups[group.name]["kept"]].sum() / values.sum())
    assert any(group.leading.dim == 1 for group in graph.groups)
    assert min(expected) < 1
    found = share_kept(graph, scores, planned_indices(plan.keep))
    assert found == pytest.approx(np.exp(np.mean(np.log(expected))))


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"passed": True, "max_rel": 1e-15}, "passed"),
        ({"passed": False, "max_rel": 0.5}, "differs by 5.0e-01"),
        ({"passed": False, "max_rel": 0.5, "unclear": True}, "unclear"),
        ({"passed": False, "max_rel": None, "detail": "fc.weight is gone"}, "fc.weight is gone"),
    ],
)
def test_the_gate_of_torch_pruning_claims_no_more_than_is_known(gate, words):
    assert words in table.verdict_on(RowGate(**gate))


def test_peak_memory_sees_what_is_allocated_inside():
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        assert np.ones(16 * 2**20).sum() == 16 * 2**20  # 128 MiB
    assert peak.bytes - before.bytes > 100 * 2**20


@pytest.mark.thorough
def test_a_comparison_from_one_dense_network_then_resumed(tmp_path, quick, monkeypatch):
    recipe, out = check_recipe(SMALL), tmp_path / "out"
    result = compare(recipe, out, roundings=(8,))
    ours, theirs = result["rows"]
    assert (ours["network"], theirs["network"]) == ("structprune", "torch-pruning-8")
    assert ours["gate"]["passed"]
    assert theirs["gate"]["passed"]
    assert abs(theirs["macs"] / ours["macs"] - 1) < 0.2  # as near as widths in eights come
    kept = load_file(out / "torch-pruning-8" / "kept.safetensors")
    assert all(len(kept[key]) % 8 == 0 for key in kept if key in ("one.weight/0", "two.weight/0"))
    for row in result["rows"]:
        assert 0 < row["kept_importance"] < 1
        assert 0 <= row["quality"]["pruned"] <= 1
        assert row["ci95"][0] <= row["speedup"] <= row["ci95"][1]
        assert row["peak_bytes"] > 2**20
    report = json.loads((out / "structprune" / "report.json").read_text())
    assert report["quality"]["dense"] == result["dense"]["quality"]
    assert draw(Comparison.model_validate(result), tmp_path / "picture.png").stat().st_size > 1000
    assert compare_table(Comparison.model_validate(result)).row_count == 2
    assert [group["kept"]["torch-pruning-8"] for group in result["widths"]] == [
        len(kept[f"{group['name']}.weight/0"]) for group in result["widths"]
    ]
    assert compare(recipe, out, roundings=(8,), resume=True) == json.loads((out / "compare.json").read_text())
    with pytest.raises(RecipeError, match="already holds a comparison"):
        compare(recipe, out, roundings=(8,))
    with pytest.raises(RecipeError, match="by another recipe"):
        compare(check_recipe({**SMALL, "seed": 1}), out, resume=True)

    text = (out / "compare.json").read_text()
    (out / "compare.json").write_text(text.replace('"kept_by"', '"kept"'))
    with pytest.raises(RecipeError, match=r"compare\.json is damaged: kept_by is missing: give another folder"):
        compare(recipe, out, resume=True)
    (out / "compare.json").write_text(text)

    peer_timed_as(monkeypatch, 1.3)  # added to what is there
    added = compare(recipe, out, roundings=(8,), resume=True, as_fast=True)
    assert [row["network"] for row in added["rows"]] == ["structprune", "torch-pruning-8", "structprune-as-fast"]
    again, theirs, fast = added["rows"]
    assert (again["macs"], theirs["macs"]) == (ours["macs"], result["rows"][1]["macs"])
    plan = sp.Plan.from_json((out / "structprune-as-fast" / "plan.json").read_text())
    assert plan.budget == {"speedup": 1.3}
    assert plan.allocation == "knapsack"
    assert plan.latency["rounds"][0]["goal"] == fast["asked"]["speedup"] == 1.3
    assert (fast["macs"], fast["gate"]["passed"]) == (plan.macs["slim"], True)
    started = with_trained_network(recipe, out, Reporter())
    graph, scores = graph_and_scores(started, out / "structprune", Reporter())
    assert fast["kept_importance"] == share_kept(graph, scores, planned_indices(plan.keep))
    assert fast["asked"]["reached_ci95"][0] <= fast["asked"]["reached"] <= fast["asked"]["reached_ci95"][1]
    assert "structprune-as-fast: the recipe with budget speedup=1.3 alone" in str(
        compare_table(Comparison.model_validate(added)).caption
    )
    assert "as fast as torch-pruning-8 (95 %: " in str(compare_table(Comparison.model_validate(added)).caption)
    for flag in (True, False):  # a record that has more than is asked for stays as it is
        assert compare(recipe, out, resume=True, as_fast=flag) == json.loads((out / "compare.json").read_text())

    (out / "compare.json").unlink()  # interrupted before a run of torch-pruning ended
    (out / "torch-pruning-8" / "result.json").unlink()
    stopped = compare(recipe, out, roundings=(8,), resume=True, timeout=0.5)
    assert stopped["rows"][1]["error"] == "no result in 0.5 s"
    assert stopped["rows"][0]["kept_importance"] == ours["kept_importance"]
    assert draw(Comparison.model_validate(stopped), tmp_path / "picture.png").is_file()
    (out / "compare.json").unlink()
    (out / "torch-pruning-8" / "result.json").write_text('{"align": 8, "ratio": "half"}')
    with pytest.raises(StoreError, match=r"result\.json is damaged: "):
        compare(recipe, out, roundings=(8,), resume=True)
    (out / "torch-pruning-8" / "result.json").write_text('{"align": 8, "error": "prune: IndexError: index 7"}')
    failed = compare(recipe, out, roundings=(8,), resume=True, as_fast=True)
    assert "torch-pruning-8: prune: IndexError: index 7" in str(
        compare_table(Comparison.model_validate(failed)).caption
    )
    assert [row["network"] for row in failed["rows"]] == ["structprune", "torch-pruning-8"]
    assert "no structprune-as-fast: torch-pruning-8 failed" in failed["notes"]


def test_two_comparisons_in_one_folder_at_once(tmp_path):
    with held(tmp_path / "out"), pytest.raises(RecipeError, match="another run is at work in"):
        compare(check_recipe(SMALL), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_int8_files_of_the_run_are_timed_and_left_as_they_are(tmp_path):
    path, own = tmp_path / "slim.onnx", tmp_path / "slim-int8.onnx"
    model, x = small()
    sp.export_onnx(model, x, path)
    runtime = Runtime(dtype="int8")
    assert converted_file(path, Runtime()) == path
    assert converted_file(path, runtime) == own
    own.write_bytes(b"calibrated")
    assert converted_file(path, runtime) == own
    assert own.read_bytes() == b"calibrated"


PEER = CutRow(
    network="torch-pruning-8",
    tool="torch-pruning",
    macs=1,
    cut=2.0,
    params=1,
    gate=RowGate(passed=True, max_rel=0.0),
    quality={"pruned": 0.5, "final": 0.5},
    seconds=1.0,
    peak_bytes=1,
)


def as_fast_as(speedup, folder, monkeypatch):
    peer_timed_as(monkeypatch, speedup)
    recipe = check_recipe({**SMALL, "train": None})
    return row_as_fast(recipe, PEER, None, None, folder, Reporter())


def test_no_network_is_asked_to_be_slower_than_dense(tmp_path, monkeypatch):
    row, note = as_fast_as(0.9, tmp_path, monkeypatch)
    assert row is None
    assert note.startswith("no structprune-as-fast: torch-pruning-8 was measured to be 0.90× as fast as dense")


def test_a_speed_out_of_reach_is_the_rows_error(tmp_path, quick, monkeypatch):
    row, note = as_fast_as(50.0, tmp_path, monkeypatch)
    assert "budget speedup 50 " in row.error
    assert "can't be met" in row.error
    assert (row.network, row.tool, row.goal.speedup) == ("structprune-as-fast", "structprune", 50.0)
    assert note.startswith("structprune-as-fast: the recipe with budget speedup=50 alone and allocation knapsack")


@pytest.mark.parametrize(
    ("prune", "allocation"),
    [
        ({"allocation": "global", "align": 4, "criterion": "thinet_forward"}, "knapsack"),
        ({"allocation": "sensitivity"}, "sensitivity"),
        ({"allocation": "knapsack", "budget": {"macs": 0.5, "latency_ms": 3.0}}, "knapsack"),
    ],
)
def test_as_fast_changes_the_budget_and_what_shares_it_alone(prune, allocation):
    recipe = check_recipe(
        {**RECIPE, "data": {"source": "digits", "calibration": {"images": 128}}, "prune": {**RECIPE["prune"], **prune}}
    )
    made = with_speedup(recipe, 1.5)
    assert made.prune.budget.as_dict() == {"speedup": 1.5}
    assert made.prune.allocation == allocation
    back = {"budget": recipe.prune.budget, "allocation": recipe.prune.allocation}
    assert made.model_copy(update={"prune": made.prune.model_copy(update=back)}) == recipe


@pytest.mark.parametrize(
    ("prune", "importance", "notes"),
    [
        ({"criterion": "l2", "allocation": "uniform"}, "GroupMagnitudeImportance", 1),
        ({"criterion": "slimming", "allocation": "threshold"}, "BNScaleImportance", 1),
        ({"criterion": "bn_variance", "allocation": "knapsack"}, "GroupMagnitudeImportance", 3),
    ],
)
def test_settings_of_torch_pruning_say_what_it_lacks(prune, importance, notes):
    spec = {"budget": {"macs": 0.5}, "ignore": ["layer4*"], **prune}
    settings, said = settings_of(check_recipe({**RECIPE, "train": None, "prune": spec}))
    assert settings.importance == importance
    assert settings.global_ == (prune.get("allocation") == "threshold")
    assert "layer4.0.conv1" in settings.ignored
    assert len(said) == notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "prune.criterion=l3"], "did you mean"),
        (["--set", "prune.budget.macs=0.000001"], "can't be met"),
        (["--resume"], "holds no comparison to resume"),
        (["--set", "runtime.engine=torch"], "torch runs modules: set runtime.engine to onnxruntime or openvino"),
        (["--as-fast"], "STRUCTPRUNE_TIMING=off allows none"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, options, message):
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(RECIPE))
    done = CliRunner().invoke(app, ["compare", str(path), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_bound_of_quality_is_no_cost_to_compare_at(tmp_path):
    recipe = check_recipe({**RECIPE, "prune": {"budget": {"quality_drop": 0.01}}}, "here")
    with pytest.raises(RecipeError, match="all networks to the same cost, and quality_drop bounds quality: give macs"):
        compare(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
