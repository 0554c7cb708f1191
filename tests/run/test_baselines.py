"""Baselines of a run: the slim structure from new or early weights, and the dense network trained as long."""

import pytest
import torch
import yaml

import structprune as sp
from structprune.modules import tensors
from structprune.progress import Reporter
from structprune.recipe import check_recipe
from structprune.run import runner_of
from structprune.store.artefacts import Artefacts
from structprune.train import trainer
from tests.run.small_network import RECIPE, Small, short_turns


@pytest.fixture(scope="module", autouse=True)
def _short_turns():
    with short_turns():
        yield


def recipe(**finetune):
    return {**RECIPE, "finetune": {**RECIPE["finetune"], "epochs": 1, **finetune}}


def runner(folder, data):
    return runner_of(check_recipe(data), Reporter(), Artefacts(folder))


def test_training_from_scratch_keeps_the_structure_alone(tmp_path):
    from_cut, anew = runner(tmp_path, recipe()), runner(tmp_path, recipe(start="scratch", equal="compute"))
    plan = anew.value("plan")
    assert plan == from_cut.value("plan")
    cut, slim = (tensors(sp.prune(each.value("dense"), plan)) for each in (from_cut, anew)), anew.value("slim")
    assert all(torch.equal(*pair) for pair in zip(*(each.values() for each in cut), strict=True))  # one dense network
    assert {k: t.shape for k, t in tensors(slim).items()} == {
        k: t.shape for k, t in tensors(from_cut.value("slim")).items()
    }
    start = anew.value("gates.pruned")  # proven with the weights that were cut
    assert start.passed
    assert not start.record().to_data()["weights"]["trained"]
    epochs = plan.macs["dense"] // plan.macs["slim"]
    assert epochs >= 2
    assert len((anew.folder("slim") / "slim.summary.csv").read_text().splitlines()) == 1 + epochs


def test_rewinding_takes_the_weights_that_the_dense_training_had(tmp_path, monkeypatch):
    """They are held against those that the dense training itself wrote after that epoch."""
    written, store = {}, trainer.store

    def watched(path, model, optimizer, epochs, states=()):
        kept = {key: tensor.clone() for key, tensor in tensors(model).items()}
        written.setdefault((path.name, epochs, model.one.out_channels), kept)
        store(path, model, optimizer, epochs, states)

    monkeypatch.setattr(trainer, "store", watched)
    run = runner(tmp_path, recipe(start="rewind", rewind_to=1))
    dense = run.value("dense")
    early = written["dense.training.safetensors", 1, 16]
    plan = run.value("plan")
    slim = run.value("slim", before="finetune")
    expected = Small()
    for key, tensor in tensors(expected).items():
        tensor.data.copy_(early[key])
    expected = tensors(sp.prune(expected, plan))
    assert not torch.equal(expected["one.weight"], tensors(sp.prune(dense, plan))["one.weight"])
    assert all(torch.equal(tensor, expected[key]) for key, tensor in tensors(slim).items())


def test_rewinding_to_epoch_0_takes_the_weights_before_training(tmp_path):
    run = runner(tmp_path, recipe(start="rewind", rewind_to=0))
    slim = run.value("slim", before="finetune")
    torch.manual_seed(0)
    expected = tensors(sp.prune(Small(), run.value("plan")))
    assert all(torch.equal(tensor, expected[key]) for key, tensor in tensors(slim).items())


def test_a_report_says_what_was_trained(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe(start="scratch")))
    report = sp.run(path, tmp_path / "run")
    assert report["gate"]["passed"]
    assert report["finetuning"] == {"start": "scratch", "epochs": 1}
    assert "on 360 images, trained from new weights" in report["verdict"]["text"]
    assert "accuracy, trained from new weights" in (tmp_path / "run" / "report.html").read_text()


def test_the_dense_network_trained_as_long(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**recipe(), "prune": {"budget": {"macs": 1.0}}}))
    report = sp.run(path, tmp_path / "run")
    assert report["gate"]["passed"]
    assert report["macs"]["slim"] == report["macs"]["dense"]
    assert report["quality"]["pruned"] == report["quality"]["dense"]
    assert report["finetuning"] == {"start": "slim", "epochs": 1}
