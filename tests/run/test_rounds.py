"""A cut in rounds: each is proven, all compose, and an interrupted run goes on to the same network."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils import _pytree as pytree

import structprune as sp
from structprune.errors import GateError
from structprune.inspection import scan
from structprune.modules import tensors
from structprune.progress import Reporter
from structprune.recipe import check_recipe
from structprune.run import runner_of
from structprune.schedules.optimizer_state import CarriedState
from structprune.store.artefacts import Artefacts
from structprune.train.checkpoint import read_state
from tests.run.small_network import RECIPE, short_turns

ROOT = Path(__file__).parents[2]
surgery = importlib.import_module("structprune.run.stages.surgery")
train_module = importlib.import_module("structprune.train.stage")
ROUNDS = {
    **RECIPE,
    "train": {**RECIPE["train"], "epochs": 1},
    "prune": {**RECIPE["prune"], "budget": {"macs": 0.25}, "schedule": {"rounds": 2, "shape": "linear", "epochs": 1}},
    "finetune": {**RECIPE["finetune"], "epochs": 1},
}


@pytest.fixture(scope="module", autouse=True)
def _short_turns():
    with short_turns():
        yield


def runner(folder, **changes):
    return runner_of(check_recipe({**ROUNDS, **changes}), Reporter(), Artefacts(folder))


def runner_settled(whole):
    run = runner(whole[0] / ".structprune")
    run.settle("slim")
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run in two rounds: its folder and its report."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "rounds.yaml").write_text(yaml.safe_dump(ROUNDS))
    return folder, sp.run(folder / "rounds.yaml", folder / "run")


def test_rounds_end_in_one_plan_of_the_dense_network(whole):
    folder, report = whole
    plan = sp.Plan.read(folder / "run" / "plan.json")
    cuts = plan.constraints["cuts"]
    dense = cuts[0]["macs"]["dense"]
    assert [cut["macs"]["dense"] for cut in cuts] == [dense, cuts[0]["macs"]["slim"]]
    for cut, share in zip(cuts, (0.625, 0.25), strict=True):
        assert 0.9 * share * dense < cut["macs"]["slim"] <= share * dense
    assert report["gate"]["passed"]
    assert report["macs"]["slim"] == cuts[1]["macs"]["slim"] == sum(report["macs"]["fvcore"]["slim"].values())
    assert [row["macs"] for row in report["rounds"]] == [cut["macs"]["slim"] for cut in cuts]
    assert report["rounds"][1]["final"] == report["quality"]["final"]
    assert report["rounds"][1]["pruned"] == report["quality"]["pruned"]
    assert report["budget"] == {"macs": 0.25}  # as it was asked for; the plan has what that comes to
    page = (folder / "run" / "report.html").read_text()
    assert "Rounds" in page


def test_each_training_has_event_files_of_its_own(whole):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = whole[0] / "run" / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == ["dense", "slim", "slim.1"]
    for network in folder.iterdir():
        shown = accumulators.EventAccumulator(str(network)).Reload()
        assert [event.step for event in shown.Scalars("train_loss")] == [1]


def test_each_round_cuts_what_the_one_before_has_trained(whole, tmp_path):
    run = runner_settled(whole)
    first, base = run.value("plan", before="next.1"), run.value("base")
    trained = load_file(run.folder_of("finetune.1") / "slim.safetensors")
    assert all(torch.equal(tensor, trained[key]) for key, tensor in tensors(base).items())
    cut = sp.prune(run.value("dense"), first)
    assert not torch.equal(tensors(cut)["two.weight"], trained["two.weight"])
    slim = sp.prune(base, run.value("cut_plan"))
    once = sp.prune(run.value("dense"), run.value("plan"))
    assert {k: t.shape for k, t in tensors(slim).items()} == {k: t.shape for k, t in tensors(once).items()}
    assert run.gates() == ["pruned.1", "pruned", "final", "macs"]


METHODS = {
    "data": {**ROUNDS["data"], "calibration": {"images": 64}},
    "train": {**ROUNDS["train"], "epochs": 2, "methods": ["slimming"], "model_ema": True, "val_interval": 1},
    "prune": {**ROUNDS["prune"], "criterion": "thinet"},
    "recover": ["means", "least_squares", {"method": "polish", "epochs": 1}],
    "finetune": {**ROUNDS["finetune"], "opt": "lion", "mixup": 0.2, "methods": ["distill"]},
}


@pytest.mark.thorough
@pytest.mark.skipif(torch.cuda.is_available(), reason="training is the same twice on a CPU alone")
def test_a_run_in_rounds_by_methods_that_is_killed_again_and_again_ends_as_a_whole_one_does(tmp_path):
    path = tmp_path / "rounds.yaml"
    path.write_text(yaml.safe_dump({**ROUNDS, **METHODS}))
    sp.run(path, tmp_path / "apart" / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.run.killed_runs", str(path), str(out), *map(str, range(20, 260, 60))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    assert not (out / "report.json").exists()
    sp.run(path, out, resume=True)
    ours, theirs = (load_file(folder / "slim.safetensors") for folder in (out, tmp_path / "apart" / "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


@pytest.mark.thorough
def test_the_optimizer_goes_on_with_what_is_left_of_its_state(whole, tmp_path, monkeypatch):
    first = read_state(runner_settled(whole).folder_of("finetune.1") / "slim.optimizer.safetensors")["parameters"]
    started, start = {}, CarriedState.start

    def watched(self, training):
        start(self, training)
        names = {id(tensor): key for key, tensor in tensors(training.model).items()}
        state = {names[id(p)]: s for p, s in training.optimizer.state.items()}
        started[self.left is None] = pytree.tree_map(lambda tensor: tensor.clone().cpu(), state)

    monkeypatch.setattr(CarriedState, "start", watched)
    run = runner(tmp_path)
    plan = run.value("cut_plan")
    run.value("slim")
    kept = plan.groups["two"]["kept"]
    assert started[True] == {}
    tolerance = 1e-3 if torch.cuda.is_available() else 0  # a GPU sums in another order each time
    for moment, left in (
        (started[False]["head.weight"]["exp_avg"], first["head.weight"]["exp_avg"][:, kept]),
        (started[False]["two.bias"]["exp_avg_sq"], first["two.bias"]["exp_avg_sq"][kept]),
    ):
        assert (moment - left).abs().max() <= tolerance * left.abs().max()
    assert started[False]["two.bias"]["step"] == first["two.bias"]["step"] > 0
    changes = {"prune": {**ROUNDS["prune"], "schedule": {**ROUNDS["prune"]["schedule"], "optimizer": "new"}}}
    started.clear()
    fresh = runner(tmp_path, **changes)
    assert not torch.equal(tensors(fresh.value("slim"))["head.bias"], tensors(run.value("slim"))["head.bias"])
    assert started == {}


def test_in_graph_form_rounds_compose_too(tmp_path):
    changes = {"prune": {**ROUNDS["prune"], "form": "graph"}, "train": None}
    run = runner(tmp_path, **changes)
    plan, slim = run.value("plan"), run.value("slim")
    assert isinstance(slim, torch.fx.GraphModule)
    assert sp.verify(run.value("dense"), slim, plan, run.value("data").example, trained=True).passed
    assert all(run.value(f"gates.{name}").passed for name in ("pruned.1", "pruned"))


def test_a_round_that_is_cut_wrongly_ends_in_no_slim_network(tmp_path, monkeypatch):
    original, cuts, fitted = surgery.prune, [], []

    def broken(model, plan):
        slim = original(model, plan)
        if not cuts:
            slim.two.weight.data = slim.two.weight.data.roll(1, dims=1)
        cuts.append(plan)
        return slim

    monkeypatch.setattr(surgery, "prune", broken)
    fit = train_module.fit
    monkeypatch.setattr(train_module, "fit", lambda *a, **k: (fitted.append(k["what"]), fit(*a, **k))[1])
    (tmp_path / "rounds.yaml").write_text(yaml.safe_dump(ROUNDS))
    with pytest.raises(GateError, match="not the one planned"):
        sp.run(tmp_path / "rounds.yaml", tmp_path / "run")
    assert fitted == ["the dense network"]  # and nothing after
    assert not (tmp_path / "run" / "slim.onnx").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="training is the same twice on a CPU alone")
@pytest.mark.parametrize("turn", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_that_is_interrupted_in_a_round_ends_in_the_same_network(whole, tmp_path, monkeypatch, turn):
    """In the middle of the first and of the second round's training, after the weights of an epoch were written."""
    calls, store = [], importlib.import_module("structprune.train.trainer").store

    def interrupted(path, *arguments, **options):
        store(path, *arguments, **options)
        calls.append(path.name)
        if calls.count("slim.training.safetensors") == turn:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("structprune.train.trainer.store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner(tmp_path).value("slim")
    slim, theirs = runner(tmp_path).value("slim"), load_file(whole[0] / "run" / "slim.safetensors")
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in tensors(slim).items())


@pytest.mark.parametrize("criterion", ["l1", pytest.param("thinet", marks=pytest.mark.slow)])
def test_a_round_cuts_one_group_to_the_width_that_one_cut_would_give_it(tmp_path, criterion):
    data = {"data": {**ROUNDS["data"], "calibration": {"images": 48}}, "train": None, "finetune": None}
    prune = {**ROUNDS["prune"], "criterion": criterion}
    at_once = runner(tmp_path, **data, prune={**prune, "schedule": None}).value("plan")
    run = runner(tmp_path, **data, prune={**prune, "schedule": {"rounds": 2, "shape": "groups", "epochs": 0}})
    first, plan = run.value("plan", before="next.1"), run.value("plan")
    one, two = at_once.widths
    assert first.widths == {one: at_once.widths[one], two: 16}
    assert plan.widths == at_once.widths
    assert plan.groups[one] == first.groups[one]
    assert plan.budget == {"macs": at_once.macs["dense"] // 4}
    assert plan.macs == at_once.macs
    assert run.value("gates.final").passed


def test_each_round_goes_back_to_the_early_weights(tmp_path):
    """Iterative magnitude pruning of Frankle et al.: every round starts from the same early weights."""
    finetune = {**ROUNDS["finetune"], "start": "rewind", "rewind_to": 0}
    run = runner(tmp_path, finetune=finetune)
    for before, plan in (("finetune.1", run.value("plan", before="next.1")), ("finetune", run.value("plan"))):
        torch.manual_seed(0)
        expected = tensors(sp.prune(type(run.value("dense"))(), plan))
        assert all(torch.equal(tensor, expected[key]) for key, tensor in tensors(run.value("slim", before)).items())


def test_a_scan_is_of_the_dense_network_whatever_the_schedule(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "fit", lambda *a, **k: pytest.fail("a scan trains nothing"))
    data = {**ROUNDS, "data": {**ROUNDS["data"], "calibration": {"images": 64}}, "train": None}
    (tmp_path / "rounds.yaml").write_text(yaml.safe_dump(data))
    graph, sensitivity = scan(tmp_path / "rounds.yaml")
    assert [group.units for group in graph.groups] == [16, 16]
    assert {max(curve) for curve in sensitivity.losses.values()} == {16}


def test_recovery_mends_each_round(tmp_path):
    changes = {"recover": ["means"], "data": {**ROUNDS["data"], "calibration": {"images": 48}}, "finetune": None}
    schedule = {**ROUNDS["prune"], "schedule": {"rounds": 2, "epochs": 0}}
    run = runner(tmp_path, prune=schedule, **changes)
    assert run.value("gates.final").passed
    rounds = [run.value(name) for name in ("rounds.1.recovery", "recovery")]
    assert [[step.layers > 0 for step in steps] for steps in rounds] == [[True], [True]]
    assert dataclasses.asdict(run.value("rounds.1.final"))["value"] == rounds[0][0].quality


def test_where_rounds_are_not_trained_the_last_cut_is_proven_and_no_other(tmp_path, monkeypatch):
    original, plans = surgery.prune, []

    def broken(model, plan):
        slim = original(model, plan)
        if len(plans) > 1:
            slim.two.weight.data = slim.two.weight.data.roll(1, dims=1)
        plans.append(plan)
        return slim

    assert {"pruned.1", "pruned", "final"} <= set(runner(tmp_path).gates())  # where they are trained, each is
    schedule = {**ROUNDS["prune"], "schedule": {"rounds": 3, "epochs": 0}}
    run = runner(tmp_path, prune=schedule, finetune=None)
    assert [name for name in run.gates() if name.startswith("pruned")] == ["pruned"]
    monkeypatch.setattr(surgery, "prune", broken)
    assert not run.value("gates.pruned").passed  # of the dense network and the plans of all rounds
    assert len(plans) == 3


def test_rounds_without_training_end_in_the_dense_network_cut_and_recovered_at_once(tmp_path):
    changes = {"recover": ["means"], "data": {**ROUNDS["data"], "calibration": {"images": 48}}, "finetune": None}
    schedule = {**ROUNDS["prune"], "schedule": {"rounds": 3, "epochs": 0}}
    run = runner(tmp_path, prune=schedule, **changes)
    dense, plan, images = run.value("dense"), run.value("plan"), run.value("data").calibration
    expected = sp.recover(dense, sp.prune(dense, plan), plan, images, ["means"])
    ours, theirs = tensors(run.value("slim")), tensors(expected.model)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert run.value("rounds.1.final").value != run.value("quality.final").value
