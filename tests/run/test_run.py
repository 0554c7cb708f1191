"""Whole runs by API and command line, on a tiny network."""

import dataclasses
import functools
import importlib
import importlib.metadata
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.cost import learning
from structprune.cost.model import by_macs
from structprune.errors import GateError, ModelError, RecipeError
from structprune.graph.layers import KINDS
from structprune.report import SCHEMA, Report
from structprune.runtimes import ENGINES
from tests.run.small_network import RECIPE, short_turns

stages = {name: importlib.import_module(f"structprune.run.stages.{name}") for name in ("costs", "planning", "surgery")}
train_module = importlib.import_module("structprune.train.stage")

same_twice = pytest.mark.skipif(torch.cuda.is_available(), reason="training is the same twice on a CPU alone")

TINY = {
    "model": {"name": "test_resnet", "kwargs": {"in_chans": 1, "num_classes": 10}},
    "data": {"source": "digits", "image_size": 16},
    "train": {"epochs": 2, "opt": "adamw", "lr": 0.003},
    "prune": {"criterion": "l1", "budget": {"macs": 0.5}, "align": 1},
    "finetune": {"epochs": 2, "opt": "adamw", "lr": 0.001},
    "bench": {"seconds": 0.05},
}


@pytest.fixture(scope="module", autouse=True)
def _short_turns():
    with short_turns():
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe with a network of timm's."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A recipe with the smallest network."""
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def finish(recipe, folder):
    return folder / "run", sp.run(recipe, folder / "run")


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    return finish(recipe, tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def small_finished(small, tmp_path_factory):
    return finish(small, tmp_path_factory.mktemp("small"))


def cli(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stderr if result.stderr else result.output, result.output


def test_a_run_leaves_its_artefacts_and_nothing_else(finished):
    folder, report = finished
    assert sorted(path.name for path in folder.iterdir() if path.name != "tensorboard") == [
        "dense.onnx",
        "dense.safetensors",
        "dense.summary.csv",
        "environment.json",
        "groups.json",
        "log.jsonl",
        "plan.json",
        "recipe.yaml",
        "report.html",
        "report.json",
        "slim.onnx",
        "slim.safetensors",
        "slim.summary.csv",
    ]
    lines = (folder / "slim.summary.csv").read_text().split()
    assert lines[0] == "epoch,train_loss,lr"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1"]
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "finished"
    assert sum(event["event"] == "epoch" for event in events) == 4


def test_the_report_says_what_happened(finished):
    _, report = finished
    assert report["schema"] == SCHEMA
    assert report["verdict"]["state"] in ("good", "poor")  # of a network so small that timing it is chance
    assert f"{report['quality']['final']:.4f} on 360 images" in report["verdict"]["text"]
    assert report["gate"]["passed"] is True
    assert report["gate"]["before_finetuning"]["passed"] is True
    for name in ("masked_vs_slim", "reload", "onnx"):
        assert report["gate"][name]["max_rel"] <= report["gate"][name]["tolerance"]
        assert report["gate"][name]["batches"] == [1, 4]
    macs, latency = report["macs"], report["latency"]
    assert macs["cut"] == macs["dense"] / macs["slim"] >= 2
    assert macs["by_operator"] == macs["fvcore"]
    assert latency["ci95"][0] <= latency["speedup"] <= latency["ci95"][1]
    assert latency["threads"] == latency["batch"] == 1
    assert report["quality"]["metric"] == "accuracy"
    assert report["quality"]["final"] > 0.5
    assert report["environment"]["packages"]["torch"] == importlib.metadata.version("torch")
    assert {"name", "channels", "kept_channels", "params", "macs", "kind"} <= set(report["groups"][0])
    assert report["barriers"] == []


ADDED = {"rounds", "epochs", "finetuning", "formats"}  # since then


def test_the_report_has_the_fields_that_it_always_had(finished):
    """Those of a file that was written before there were records."""
    _, report = finished
    before = json.loads((Path(__file__).parents[1] / "report" / "report.json").read_text())
    assert [name for name in report if name in before] == list(before)
    assert set(report) - set(before) == ADDED
    for name in ("verdict", "constraints", "macs", "params", "onnx", "gate", "environment", "data"):
        assert list(report[name]) == list(before[name]), name
    assert [key for key in report["latency"] if key != "slim_ms_ci95"] == list(before["latency"])
    for name in ("by_operator", "fvcore"):
        assert list(report["macs"][name]) == ["dense", "slim"]
    for name in ("float64", "before_finetuning", "weights"):
        assert list(report["gate"][name]) == list(before["gate"][name])
    for name in ("layers", "groups"):
        assert [key for key in report[name][0] if key in before[name][0]] == list(before[name][0])
    unlabelled, recovery = {"random_weights", "kl"}, {"recovered"}
    assert set(report["quality"]) == set(before["quality"]) - unlabelled - recovery
    assert (report["int8"], report["also"], report["recovery"]) == ([], [], [])
    assert (report["search"], report["planned_latency"]) == (None, None)
    assert Report.model_validate(report).to_data() == report


def test_a_broken_report_is_one_line(finished, recipe, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    report = json.loads((folder / "report.json").read_text())
    del report["gate"]["float64"]
    (folder / "report.json").write_text(json.dumps(report))
    code, error, _ = cli("run", recipe, "--out", folder, "--resume")
    assert code == 2
    assert "report.json is damaged: gate.float64 is missing: give another folder by --out" in " ".join(error.split())


def test_the_artefacts_agree_with_each_other(finished):
    folder, _ = finished
    slim = sp.load(folder)
    x = torch.randn(3, 1, 16, 16)
    session = onnxruntime.InferenceSession(str(folder / "slim.onnx"), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(made, slim(x).detach(), rtol=1e-3, atol=1e-4)
    plan = sp.Plan.from_json((folder / "plan.json").read_text())
    assert sum(p.numel() for p in slim.parameters()) == plan.params["slim"]


def test_the_page_shows_the_result(finished):
    folder, report = finished
    page = (folder / "report.html").read_text()
    assert report["verdict"]["text"][1:] in page
    assert 'data-plot="widths"' in page
    assert f"{report['macs']['slim']:,}" in page
    assert "passed" in page


def test_a_second_run_into_the_folder_is_refused_and_resume_shows_the_first(recipe, finished):
    folder, report = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code, error, _ = cli("run", recipe, "--out", folder)
    assert code == 2
    assert "already holds a run" in error
    assert "--resume" in error
    code, _, output = cli("run", recipe, "--out", folder, "--resume")
    assert code == 0
    assert f"{report['macs']['slim']:,}" in output
    code, error, _ = cli("run", recipe, "--out", folder, "--resume", "--set", "prune.budget.macs=0.4")
    assert code == 2
    assert "another recipe" in error
    plan = sp.run(recipe, folder, resume=True, plan_only=True)
    assert sp.Plan.from_json(json.dumps(plan)) == sp.Plan.read(folder / "plan.json")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.thorough
@same_twice
def test_an_interrupted_run_resumes_to_the_same_network(small, small_finished, tmp_path, monkeypatch):
    folder, _ = small_finished
    original, calls = train_module.fit, []

    def interrupted(model, *arguments, progress, **options):
        calls.append(1)

        def stop(step, steps, shown):
            if len(calls) == 2 and step == steps - 3:  # in the last epoch of fine-tuning
                raise KeyboardInterrupt
            progress(step, steps, shown)

        return original(model, *arguments, progress=stop, **options)

    monkeypatch.setattr(train_module, "fit", interrupted)
    code, error, _ = cli("run", small, "--out", tmp_path / "run")
    assert code == 130
    assert f"--out {tmp_path / 'run'} --resume" in " ".join(error.split())
    assert not (tmp_path / "run" / "report.json").exists()
    assert not (tmp_path / "run" / "slim.safetensors").exists()
    code, error, _ = cli("run", small, "--out", tmp_path / "run")
    assert code == 2
    assert "interrupted run" in error
    monkeypatch.setattr(train_module, "fit", original)
    code, _, _ = cli("run", small, "--out", tmp_path / "run", "--resume")
    assert code == 0
    ours, theirs = (load_file(path / "slim.safetensors") for path in (tmp_path / "run", folder))
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


RECOVERED = [
    "data.calibration.images=96",
    "recover=[means, least_squares, batchnorm]",
    "prune.criterion=thinet",
    "finetune=null",
]


def test_recovery_is_reported_step_by_step_and_the_gate_holds(small, tmp_path, monkeypatch):
    report = sp.run(small, tmp_path / "run", overrides=RECOVERED)
    assert report["gate"]["passed"]
    assert report["gate"]["before_finetuning"]["passed"]
    assert [step["method"] for step in report["recovery"]] == ["means", "least_squares", "batchnorm"]
    assert all(step["layers"] > 0 and 0 <= step["quality"] <= 1 for step in report["recovery"])
    quality = report["quality"]
    assert quality["recovered"] == quality["final"] == report["recovery"][-1]["quality"]
    assert quality["final"] > quality["pruned"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Recovery without labels" in page
    assert "least_squares (full)" in page
    slim = sp.load(tmp_path / "run")
    session = onnxruntime.InferenceSession(str(tmp_path / "run" / "slim.onnx"), providers=["CPUExecutionProvider"])
    x = torch.randn(2, 1, 8, 8)
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(made, slim(x).detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("criterion", ["osscar", "thinet"])
def test_a_criterion_that_ranks_for_widths_chooses_the_units_of_the_scan(small, tmp_path, criterion):
    sets = [*RECOVERED, f"prune.criterion={criterion}", "prune.allocation=sensitivity", "prune.scan={ratios: [0.5]}"]
    report = sp.run(small, tmp_path / "run", overrides=[*sets, "recover=[least_squares, temperature]"])
    assert report["gate"]["passed"]
    assert report["quality"]["final"] > report["quality"]["pruned"]
    sets = [x for o in (*sets, "train=null") for x in ("--set", o)]
    code, _, output = cli("sensitivity", small, *sets, "--json")
    assert code == 0
    own = json.loads(output[output.index("{") :])["losses"]
    code, _, output = cli("sensitivity", small, *sets, "--set", "prune.criterion=l1", "--json")
    assert code == 0
    by_size = json.loads(output[output.index("{") :])["losses"]
    assert own.keys() == by_size.keys()
    assert own != by_size


@pytest.mark.thorough
@same_twice
def test_a_run_interrupted_in_recovery_resumes_to_the_same_network(small, tmp_path, monkeypatch):
    overrides = [*RECOVERED, "finetune={epochs: 1, lr: 0.001}", "prune.allocation=sensitivity"]
    overrides += ["prune.criterion=l1", "train.epochs=1", "data.calibration.images=64"]
    sp.run(small, tmp_path / "other" / "whole", overrides=overrides)
    original, scored = train_module.fit, []

    def stop(model, *arguments, **options):
        if options["checkpoint"].name.startswith("slim"):
            raise KeyboardInterrupt
        return original(model, *arguments, **options)

    monkeypatch.setattr(train_module, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        sp.run(small, tmp_path / "run", overrides=overrides)
    monkeypatch.setattr(train_module, "fit", original)
    monkeypatch.setattr(stages["planning"], "score", lambda *a, **k: scored.append(a))
    monkeypatch.setattr(stages["surgery"], "recover", lambda *a, **k: scored.append(a))
    report = sp.run(small, tmp_path / "run", overrides=overrides, resume=True)
    assert not scored  # the plan and the recovered network were kept
    assert len(report["recovery"]) == 3
    ours, theirs = (load_file(tmp_path / name / "slim.safetensors") for name in ("run", "other/whole"))
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_a_recovery_that_is_not_finite_is_refused(small, tmp_path, monkeypatch):
    from structprune.recover import least_squares

    def broken(mending, *arguments):
        mending.slim.write("head.bias", mending.slim.state["head.bias"] * torch.nan)
        return {}

    monkeypatch.setattr(least_squares, "refit", broken)
    code, error, _ = cli("run", small, "--out", tmp_path / "run", *[x for o in RECOVERED for x in ("--set", o)])
    assert code == 2
    assert "outputs that are not finite" in " ".join(error.split())
    assert not (tmp_path / "run" / "slim.safetensors").exists()


def test_criteria_are_listed_with_what_they_need():
    code, _, output = cli("criteria", "--json")
    assert code == 0
    entries = {entry["name"]: entry for entry in json.loads(output)}
    assert {"l1", "fpgm", "slimming", "thinet", "taylor", "chip", "random"} <= set(entries)
    assert entries["thinet"]["needs"] == ["samples", "widths"]
    assert all(entry["source"] and entry["description"] for entry in entries.values())
    code, _, output = cli("criteria")
    assert code == 0
    assert "calibration images" in output


def test_sensitivity_prints_a_scan(small):
    sets = [x for o in ("data.calibration.images=48", "train=null", "finetune=null") for x in ("--set", o)]
    code, _, output = cli("sensitivity", small, *sets, "--json")
    assert code == 0
    scan = json.loads(output[output.index("{") :])
    losses = scan["losses"]
    assert scan["inputs"] == "samples"
    assert all(min(curve.values()) >= 0 for curve in losses.values())
    code, _, output = cli("sensitivity", small, *sets)
    assert code == 0
    assert "leading layer" in output
    code, _, output = cli("sensitivity", small, *sets, "--set", "prune.scan={images: 8, ratios: [0.5]}", "--json")
    assert code == 0
    fewer = json.loads(output[output.index("{") :])["losses"]
    assert {name: len(curve) for name, curve in fewer.items()} == dict.fromkeys(losses, 2)
    half = next(iter(fewer.values()))
    assert next(iter(half.values())) != next(iter(losses.values()))[next(iter(half))]  # of other images
    code, _, output = cli("sensitivity", small, *sets[2:])
    assert code == 0
    assert "on random inputs" in output
    code, error, _ = cli("sensitivity", small, "--set", "data.calibration.images=48")
    assert code == 2
    assert "trains its network first" in error


@same_twice
def test_plan_stops_after_the_plan_and_run_goes_on_from_it(small, small_finished, tmp_path):
    folder, _ = small_finished
    code, _, output = cli("plan", small, "--out", tmp_path / "run")
    assert code == 0
    plan = sp.Plan.from_json((tmp_path / "run" / "plan.json").read_text())
    assert 0.45 < plan.macs["slim"] / plan.macs["dense"] <= 0.5
    assert f"MACs {plan.macs['slim'] / plan.macs['dense']:.4f} and parameters" in output
    assert plan == sp.Plan.from_json((folder / "plan.json").read_text())
    assert not (tmp_path / "run" / "slim.safetensors").exists()
    code, _, _ = cli("run", small, "--out", tmp_path / "run", "--resume")
    assert code == 0
    assert (tmp_path / "run" / "slim.onnx").is_file()


def test_a_failed_gate_leaves_no_slim_artefact_and_has_its_own_exit_code(small, tmp_path, monkeypatch):
    original = stages["surgery"].prune

    def broken(model, plan):
        slim = original(model, plan)
        layer = next(m for m in slim.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels > 1)
        layer.weight.data = layer.weight.data.roll(1, dims=1)
        return slim

    monkeypatch.setattr(stages["surgery"], "prune", broken)
    code, error, _ = cli("run", small, "--out", tmp_path / "run", "--set", "train.epochs=1")
    assert code == 3
    assert "not the one planned" in error
    assert "masked_vs_slim" in error
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not {name for name in left if name.startswith("slim")}
    assert ".work" not in left
    assert json.loads((tmp_path / "run" / "report.json").read_text())["gate"]["passed"] is False
    with pytest.raises(GateError, match="ended with a failed gate"):
        sp.run(small, tmp_path / "run", overrides=["train.epochs=1"], resume=True)


def test_a_slim_network_that_does_not_run_fails_the_gate(small, tmp_path, monkeypatch):
    original = stages["surgery"].prune

    def broken(model, plan):
        slim = original(model, plan)
        layer = next(m for m in slim.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels > 1)
        layer.weight.data = layer.weight.data[:, 1:]
        return slim

    monkeypatch.setattr(stages["surgery"], "prune", broken)
    code, error, _ = cli("run", small, "--out", tmp_path / "run", "--set", "train.epochs=1")
    assert code == 3
    assert "does not run" in error
    assert not {path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(("slim", "."))}


def test_a_wrong_count_of_macs_fails_the_gate(small, tmp_path, monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("structprune.report.fvcore_counts"), "count_macs", lambda model, x: {"conv": 1}
    )
    with pytest.raises(GateError, match=r"conv MACs of the slim network: \d+ planned, 1 by fvcore"):
        sp.run(small, tmp_path / "run", overrides=["train.epochs=1", "finetune=null"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "prune.budget.macs=0.00001"], "can't be met"),
        (["--set", "prune.criterion=l11"], "unknown criterion"),
        (["--set", "prune.ignore=[nothing*]"], "matches no layer"),
        (["--set", "model.kwargs.num_classes=7"], "10 classes and the model 7"),
        (["--set", "data={source: images, path: /no/such/folder}", "--set", "train=null", "--set", "finetune=null"],
         "is not a folder"),
        (["--set", "model.pretrained=true", "--set", "train=null"], "no pretrained weights|can't be reached"),
        (["--resume"], "holds no run to resume"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_exit_2_and_nothing_written(recipe, tmp_path, arguments, message, monkeypatch):
    import re

    monkeypatch.setenv("COLUMNS", "400")
    code, error, _ = cli("run", recipe, "--out", tmp_path / "run", *arguments)
    assert code == 2
    assert re.search(message, error), error
    assert error.count("error:") == 1
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_a_file_is_refused(recipe, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RecipeError, match="is a file"):
        sp.run(recipe, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_output_folders_that_can_t_be_made(recipe, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out, message in [(tmp_path / "file" / "x", "is a file"), ("", "name is empty"), ("/proc/nope/x", "can't be")]:
        code, error, _ = cli("run", recipe, "--out", out)
        assert code == 2
        assert message in " ".join(error.split())


def test_the_advice_after_an_interruption_can_be_pasted(small, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "fit", interrupted)
    code, error, _ = cli("run", small, "--out", tmp_path / "run", "--set", "prune.budget={macs: 0.6}")
    assert code == 130
    assert "--set 'prune.budget={macs: 0.6}' --resume" in " ".join(error.split())
    compared = tmp_path / "compared"
    compared.mkdir()
    (compared / "recipe.yaml").write_text(yaml.safe_dump({}))
    monkeypatch.setattr("structprune.compare.compare", interrupted)
    code, error, _ = cli("compare", small, "--out", compared, "--as-fast", "--timeout", 60)
    assert code == 130
    assert f"--out {compared} --as-fast --timeout 60 --resume" in " ".join(error.split())
    monkeypatch.setattr(stages["costs"], "trace", interrupted)
    code, error, _ = cli("run", small, "--out", tmp_path / "other")
    assert code == 130
    assert "nothing was written" in error
    assert not (tmp_path / "other").exists()


def test_version():
    code, _, output = cli("--version")
    assert (code, output.strip()) == (0, f"structprune {sp.__version__}")


def test_inspect(tmp_path):
    code, _, output = cli("inspect", "test_resnet", "--json")
    assert code == 0
    data = json.loads(output)
    assert data["groups"][0]["kind"] == "exact"
    assert data["macs"] > 0
    code, _, output = cli("inspect", "ecaresnet26t")
    assert code == 0
    assert "Barriers" in output
    assert "layers/eca.py:" in output
    code, error, _ = cli("inspect", "resnet100")
    assert code == 2
    assert "did you mean" in error
    code, error, _ = cli("inspect", "test_resnet", "--input-size", "3,x")
    assert code == 2
    assert "three whole numbers" in error


def test_groups_are_the_same_by_name_and_by_recipe(recipe):
    from structprune.inspection import inspect_model

    names = [[g.name for g in inspect_model(what).groups] for what in ("test_resnet", str(recipe))]
    assert names[0] == names[1]


def test_the_public_api_is_small_and_documented():
    assert len(sp.__all__) <= 14
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for name in sp.__all__:
        public = getattr(sp, name)
        assert public.__doc__, name
        assert f"::: {public.__module__}.{name}\n" in page, name
    assert dataclasses.is_dataclass(sp.Plan)


@pytest.mark.thorough
def test_a_budget_of_speed_and_int8_end_to_end(small, tmp_path, monkeypatch):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")
    options = [
        "train=null",
        "finetune=null",
        "model.kwargs={width: 64}",
        "data.image_size=16",
        "data.calibration={images: 64}",
        "export.int8=true",
        "recover=[means, batchnorm]",
    ]
    options += ["prune={budget: {speedup: 1.2, macs: 0.7}, allocation: knapsack, align: 4}"]
    options += ["bench.also=[torch, {engine: openvino, dtype: int8}, {threads: 2, batch: 3}]"]
    quick = functools.partial(stages["planning"].plan_measured, seconds=0.1, rounds=2)
    monkeypatch.setattr(stages["planning"], "plan_measured", quick)
    learn = functools.partial(stages["costs"].learn_cost, probes=5, seconds=0.5)
    monkeypatch.setattr(stages["costs"], "learn_cost", learn)
    monkeypatch.setattr(learning, "measure_multiples", lambda *_, **__: {kind: [16] for kind in KINDS})
    report = sp.run(small, tmp_path / "run", overrides=options)
    rounds = report["planned_latency"]["rounds"]
    assert all(entry["goal"] == 1.2 for entry in rounds)
    assert report["macs"]["slim"] <= 0.7 * report["macs"]["dense"]
    assert [row["network"] for row in report["int8"]] == ["dense", "slim", "dense-int8", "slim-int8"]
    assert all(0 < row["quality"] <= 1 and row["bytes"] > 0 for row in report["int8"])
    assert report["int8"][2]["bytes"] < report["int8"][0]["bytes"]
    assert report["int8"][1]["quality"] == report["quality"]["final"]  # int8 is made of the network that is recovered
    for slim, dense in ((1, 0), (3, 2)):
        row = report["int8"][slim]
        assert row["pruned_ci95"][0] <= row["pruned_speedup"] <= row["pruned_ci95"][1]
        assert row["pruned_speedup"] == pytest.approx(report["int8"][dense]["ms"] / row["ms"], rel=0.5)
        assert report["int8"][dense]["pruned_speedup"] is None
    latency = report["latency"]
    assert latency["efficiency"] == pytest.approx(latency["speedup"] / report["macs"]["cut"])
    assert {"one", "head"} <= {layer["layer"] for layer in report["layers"]}
    assert all(layer["dense_ms"] >= 0 for layer in report["layers"])
    assert {"dense-int8.onnx", "slim-int8.onnx"} <= {path.name for path in (tmp_path / "run").iterdir()}
    also = report["also"]
    assert [(row["engine"], row["dtype"], row["threads"], row["batch"]) for row in also] == [
        ("torch", "float32", 1, 1),
        ("openvino", "int8", 1, 1),
        ("onnxruntime", "float32", 2, 3),
    ]
    assert all(row["error"] is None and row["ci95"][0] <= row["speedup"] <= row["ci95"][1] for row in also)
    assert all(row["runtime"].startswith(row["engine"]) and row["device"] == "cpu" for row in also)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "float32 and int8" in page
    assert "KL" not in page  # labels were there
    assert "Planned and measured" in page
    assert "Where the time goes" in page
    assert "On other runtimes" in page
    assert "openvino, 1 thread, batch 1, int8" in page
    code, _, output = cli(
        "run", small, "--out", tmp_path / "run", "--resume", *[x for o in options for x in ("--set", o)]
    )
    assert code == 0
    assert "on other runtimes" in output
    files = (tmp_path / "run" / "dense.onnx", tmp_path / "run" / "slim.onnx")
    code, _, output = cli("bench", *files, "--engine", "openvino", "--seconds", "0.1")
    assert code == 0
    assert "openvino" in output
    code, error, _ = cli("bench", *files, "--engine", "torch", "--seconds", "0.1")
    assert code == 2
    assert "torch runs modules" in error
    assert "bench.also" in error
    code, error, _ = cli("bench", *files, "--engine", "onnx")
    assert code == 2
    assert "did you mean onnxruntime" in error


def test_a_run_for_torch_times_the_modules(small, tmp_path):
    options = ["train=null", "finetune=null", "runtime.engine=torch", "data.calibration={images: 64}"]
    report = sp.run(small, tmp_path / "run", overrides=[*options, "export.int8=true"])
    latency = report["latency"]
    assert latency["engine"] == "torch"
    assert latency["runtime"].startswith("torch")
    assert latency["ci95"][0] <= latency["speedup"] <= latency["ci95"][1]
    assert [row["ms"] is None for row in report["int8"]] == [False, False, True, True]
    assert report["also"] == []
    assert "latency in torch, 1 thread, batch 1" in (tmp_path / "run" / "report.html").read_text()
    assert report["layers"]


def test_what_the_runtime_can_not_run_is_said_before_the_training(recipe, tmp_path, monkeypatch):
    def fails(network, runtime):
        raise ModelError("ResNet can't be compiled")

    monkeypatch.setattr(ENGINES["torch.compile"], "open", fails)
    code, error, _ = cli("run", recipe, "--out", tmp_path / "run", "--set", "runtime.engine=torch.compile")
    assert code == 2
    assert "ResNet can't be compiled" in error
    assert not (tmp_path / "run").exists()


def test_a_layer_by_layer_criterion_takes_the_widths_of_a_measured_plan(small, tmp_path, monkeypatch):
    """Also where the network was faster than expected, so that they are wider than the uncorrected costs allow."""
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")

    def measured(graph, budget, cost, make, **_):
        plan = make(cost.corrected(0.7))
        plan.latency |= {
            "rounds": [{"goal": 1.5, "predicted": 1.5, "measured": 1.5, "ci95": [1.4, 1.6]}],
            "correction": 0.7,
        }
        return plan

    monkeypatch.setattr(stages["planning"], "plan_measured", measured)
    monkeypatch.setattr(
        stages["costs"], "learn_cost", lambda graph, runtime, *, multiples, **_: by_macs(graph, 1.0, multiples, runtime)
    )
    options = ["train=null", "finetune=null", "prune={criterion: l1_greedy, budget: {speedup: 1.5}, align: 2}"]
    plan = sp.run(small, tmp_path / "run", overrides=options, plan_only=True)
    assert plan["criterion"] == "l1_greedy"
    assert plan["latency"]["correction"] == 0.7
    assert plan["latency"]["rounds"][0]["goal"] == 1.5


def test_the_command_line_times_any_onnx_files(finished):
    folder, _ = finished
    code, _, output = cli("bench", folder / "dense.onnx", folder / "slim.onnx", "--seconds", 0.2, "--json")
    assert code == 0
    found = json.loads(output[output.index("{") :])
    assert set(found["speedup"]) == {str(folder / "slim.onnx")}
    assert cli("bench", folder / "dense.onnx", folder / "dense.onnx", "--seconds", 0.1)[0] == 0
    code, _, output = cli("bench", folder / "dense.onnx", "--seconds", 0.2)
    assert code == 0
    assert "speedup" not in output
    code, _, output = cli("bench", folder / "dense.onnx", "--seconds", 0.2, "--json")
    alone = json.loads(output[output.index("{") :])
    ((low, high),), (ms,) = alone["ms_ci95"].values(), alone["ms"].values()
    assert low <= ms <= high
    assert alone["speedup"] == {}
    code, message, _ = cli("bench", folder / "dense.onnx", "missing.onnx")
    assert code == 2
    assert "missing.onnx is not a file" in message
