"""Stages: their order, what is found again, who may write, and what a kill or a full disk leaves."""

import dataclasses
import errno
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file

import structprune as sp
from structprune.errors import BudgetError, GateError, RecipeError, StoreError
from structprune.progress import Reporter
from structprune.recipe import check_recipe
from structprune.run import runner_of
from structprune.run.stage import STAGES, Stage, ordered, stage
from structprune.store.artefacts import Artefacts

train_module = importlib.import_module("structprune.train.stage")
surgery = importlib.import_module("structprune.run.stages.surgery")

TINY = {
    "model": {"name": "test_resnet", "kwargs": {"in_chans": 1, "num_classes": 10}},
    "data": {"source": "digits", "image_size": 32, "calibration": {"images": 48}},
    "train": {"epochs": 1, "optimizer": "adamw", "lr": 0.003},
    "prune": {"criterion": "l1", "budget": {"macs": 0.5}, "align": 1},
    "recover": ["means"],
    "finetune": {"epochs": 1, "optimizer": "adamw", "lr": 0.001},
    "bench": {"seconds": 0.1},
}


@pytest.fixture
def registry():
    before = dict(STAGES)
    yield STAGES
    STAGES.clear()
    STAGES.update(before)


def never(*arguments, **options):
    raise AssertionError("this was made before")


def recipe_file(folder: Path, **changes) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


def test_two_recipes_that_train_the_same_network_train_it_once(tmp_path, monkeypatch):
    first = sp.run(recipe_file(tmp_path), tmp_path / "a", overrides=["finetune=null"])
    monkeypatch.setattr(train_module, "fit", never)
    second = sp.run(
        recipe_file(tmp_path), tmp_path / "b", overrides=["finetune=null", "recover=[]", "prune.budget.macs=0.6"]
    )
    assert second["quality"]["dense"] == first["quality"]["dense"]
    assert second["macs"]["slim"] > first["macs"]["slim"]
    dense = [load_file(tmp_path / name / "dense.safetensors") for name in ("a", "b")]
    assert all(torch.equal(tensor, dense[1][key]) for key, tensor in dense[0].items())
    with pytest.raises(AssertionError, match="made before"):  # of another training nothing is taken
        sp.run(recipe_file(tmp_path), tmp_path / "c", overrides=["train.epochs=2", "finetune=null"])
    with pytest.raises(AssertionError, match="made before"):
        sp.run(recipe_file(tmp_path), tmp_path / "d", overrides=["seed=1", "finetune=null"])


def test_a_slim_network_that_does_not_run_leaves_the_trained_one(tmp_path, monkeypatch):
    original = surgery.prune

    def broken(model, plan):
        slim = original(model, plan)
        slim.conv1[0].weight.data = slim.conv1[0].weight.data[:, :0]
        return slim

    monkeypatch.setattr(surgery, "prune", broken)
    with pytest.raises(GateError, match="does not run"):
        sp.run(recipe_file(tmp_path), tmp_path / "run")
    monkeypatch.setattr(surgery, "prune", original)
    fitted = []
    fit = train_module.fit
    monkeypatch.setattr(train_module, "fit", lambda *a, **k: (fitted.append(k["checkpoint"].name), fit(*a, **k))[1])
    sp.run(recipe_file(tmp_path), tmp_path / "run", resume=True)
    assert fitted == ["slim.training.safetensors"]


def test_two_runs_in_one_folder_at_once(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / ".run.lock"), pytest.raises(RecipeError, match="another run is at work in"):
        sp.run(recipe_file(tmp_path), folder)
    assert sorted(path.name for path in folder.iterdir()) in ([], [".run.lock"])


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="works in one process, and 2 were launched"):
        sp.run(recipe_file(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path, monkeypatch):
    from structprune.run.stages import training

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    original = train_module.save_file
    monkeypatch.setattr(training, "save_file", full)  # of the recovered network
    untrained = ["train=null", "finetune=null"]
    with pytest.raises(StoreError, match=r"no room left on the disk of .*go on by --resume"):
        sp.run(recipe_file(tmp_path), tmp_path / "run", overrides=untrained)
    monkeypatch.setattr(training, "save_file", original)
    report = sp.run(recipe_file(tmp_path), tmp_path / "run", overrides=untrained, resume=True)
    assert report["gate"]["passed"]


def test_a_full_temporary_folder_is_no_defect_of_the_network(monkeypatch):
    from tests.toys import Chain, pruned, randomise

    gate = importlib.import_module("structprune.verify.gate")
    model, x = randomise(Chain()), torch.randn(2, 3, 10, 10)
    plan, slim = pruned(model, x)

    def full(*arguments, **options):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(gate, "save", full)
    with pytest.raises(StoreError, match="no room left for the files of the gate's comparison reload"):
        sp.verify(model, slim, plan, x)


def test_a_rehearsal_reads_no_plan_that_lies_about(tmp_path, monkeypatch):
    from structprune.run import rehearse

    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text("{}")
    rehearse(check_recipe(TINY))
    impossible = {**TINY, "prune": {**TINY["prune"], "budget": {"macs": 0.0001}}}
    with pytest.raises(BudgetError):
        rehearse(check_recipe(impossible))
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_stage_takes_one_function(tmp_path, registry):
    """Doubles the last layer's bias of the slim network, between the cut and its measurement."""

    @stage("louder", after="cut", needs=("slim",), makes=("slim", "louder"))
    def louder(work, slim):
        slim.fc.bias.data *= 2
        return {"slim": slim, "louder": float(slim.fc.bias.detach().abs().sum())}

    names = [entry.name for entry in ordered(registry)]
    assert names.index("cut") < names.index("louder") < names.index("check")
    quiet = dict(registry)
    del quiet["louder"]
    recipe = check_recipe({**TINY, "train": None, "finetune": None, "recover": []})
    plain = runner_of(recipe, Reporter(), Artefacts(tmp_path))
    plain._line = [entry for entry in ordered(quiet) if entry.when(recipe)]
    runner = runner_of(recipe, Reporter(), Artefacts(tmp_path))
    assert runner.value("louder") == pytest.approx(2 * float(plain.value("slim").fc.bias.detach().abs().sum()))
    assert torch.equal(runner.value("slim").fc.bias, 2 * plain.value("slim").fc.bias)
    with pytest.raises(RecipeError, match="stage louder is there already"):
        stage("louder", after="cut", makes=("x",))(lambda work: None)
    stray = dataclasses.replace(registry["louder"], name="stray", after="cutt")
    with pytest.raises(RecipeError, match="did you mean cut"):
        ordered({**registry, "stray": stray})


def kept(name: str, calls: list, after: str | None, needs: tuple = (), makes: str = "") -> Stage:
    def run(work, **inputs):
        calls.append(name)
        (work.folder / "value").write_text(f"{name}{work.spec}({','.join(map(str, inputs.values()))})")

    def read(work):
        return (work.folder / "value").read_text()

    return Stage(
        name, run, after, lambda recipe: needs, (makes or name,), lambda recipe: recipe.prune.align, lambda r: True,
        read=read,
    )  # fmt: skip


def test_what_a_stage_makes_is_made_again_only_if_what_it_hangs_on_changed(tmp_path):
    calls: list[str] = []
    line = [kept("a", calls, None), kept("b", calls, "a", ("a",)), kept("c", calls, "b", ("b", "a"), makes="a")]
    recipe = check_recipe(TINY)

    def values(align=1):
        changed = recipe.model_copy(update={"prune": recipe.prune.model_copy(update={"align": align})})
        from structprune.run.runner import Runner

        runner = Runner(changed, Artefacts(tmp_path), Reporter(), stages=line)
        return runner.value("a")

    assert values() == "c1(b1(a1()),a1())"
    assert calls == ["a", "b", "c"]
    assert values() == "c1(b1(a1()),a1())"
    assert calls == ["a", "b", "c"]
    assert values(2) == "c2(b2(a2()),a2())"
    assert calls == ["a", "b", "c"] * 2


def untimed(report: dict) -> dict:
    """A report without what clocks say."""
    left = {k: v for k, v in report.items() if k not in ("verdict", "latency", "layers", "environment", "also", "int8")}
    left["recovery"] = [{k: v for k, v in step.items() if k != "seconds"} for step in left["recovery"]]
    return json.loads(json.dumps(left))


@pytest.mark.skipif(torch.cuda.is_available(), reason="training is the same twice on a CPU alone")
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_report(tmp_path):
    kills_and_resumes(tmp_path, kills=2)


@pytest.mark.slow
def test_a_run_that_is_killed_fifty_times_ends_in_the_same_report(tmp_path):
    for round_ in range(10):
        (tmp_path / str(round_)).mkdir()
        kills_and_resumes(tmp_path / str(round_), kills=5, seed=round_)


def kills_and_resumes(folder: Path, kills: int, seed: int = 0) -> None:
    whole = sp.run(recipe_file(folder), folder / "whole" / "run")
    draw, out = random.Random(seed), folder / "killed" / "run"
    command = [sys.executable, "-c", "from structprune.cli import main; main()", "run", str(recipe_file(folder))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(kills):
        resume = ["--resume"] if (out / "recipe.yaml").is_file() else []
        process = subprocess.Popen(
            [*command, "--out", str(out), *resume], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            process.communicate(timeout=3 + draw.uniform(0, 6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        if (out / "report.json").is_file():
            break
        time.sleep(0.05)
    report = sp.run(recipe_file(folder), out, resume=(out / "recipe.yaml").is_file())
    assert untimed(report) == untimed(whole)
    ours, theirs = load_file(out / "slim.safetensors"), load_file(folder / "whole" / "run" / "slim.safetensors")
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
