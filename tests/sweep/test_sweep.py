"""A sweep from its file to its table; what it shares, goes on with and refuses."""

import csv
import json
import shutil
from itertools import groupby

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from structprune.cli import app
from structprune.errors import RecipeError
from structprune.run import held
from structprune.sweep import Ending, SweepReport, sweep, sweep_table
from tests.run.small_network import RECIPE
from tests.sweep.small_sweep import BASE, in_this_process, quiet, text_of, write_sweep

DATA = {
    "grid": {"prune.criterion": ["l1", "random"]},
    "arms": {"hopeless": {"prune.budget.macs": 0.001}},
    "seeds": 2,
    "timing_seconds": 0.05,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep's file, its folder, its report and what it said."""
    folder = tmp_path_factory.mktemp("sweep")
    path, reporter = write_sweep(folder, DATA), quiet()
    report = sweep(path, folder / "out", executor=in_this_process, reporter=reporter)
    return path, folder / "out", report, text_of(reporter)


def test_each_arm_has_mean_and_deviation_over_its_seeds(finished):
    _, out, report, _ = finished
    assert [(arm.arm, arm.n, arm.failed) for arm in report.arms] == [("l1", 2, 0), ("random", 2, 0), ("hopeless", 0, 2)]
    qualities = [
        json.loads((out / f"random-seed{seed}" / "report.json").read_text())["quality"]["final"] for seed in (0, 1)
    ]
    arm = report.arms[1]
    assert arm.quality.mean == pytest.approx(sum(qualities) / 2)
    assert arm.quality.std == pytest.approx(abs(qualities[0] - qualities[1]) / np.sqrt(2))
    assert arm.cut.mean > 1.9
    assert report.arms[2].quality is None


def test_the_page_says_how_each_round_went(tmp_path):
    recipe = {**BASE, "finetune": {**RECIPE["finetune"], "epochs": 1}}
    data = {"arms": {"once": {}, "rounds": {"prune.schedule": {"rounds": 2, "epochs": 1}}}, "seeds": 2}
    report = sweep(write_sweep(tmp_path, data, recipe), tmp_path / "out", executor=in_this_process, reporter=quiet())
    runs = [json.loads((tmp_path / "out" / f"rounds-seed{seed}" / "report.json").read_text()) for seed in (0, 1)]
    once, rounds = report.arms
    assert once.rounds == []
    assert [(entry.round, entry.n) for entry in rounds.rounds] == [(1, 2), (2, 2)]
    for number, entry in enumerate(rounds.rounds):
        own = [run["rounds"][number] for run in runs]
        assert entry.final.mean == pytest.approx(np.mean([each["final"] for each in own]))
        assert entry.pruned.std == pytest.approx(np.std([each["pruned"] for each in own], ddof=1))
        cuts = [run["macs"]["dense"] / each["macs"] for run, each in zip(runs, own, strict=True)]
        assert entry.cut.mean == pytest.approx(np.mean(cuts))
    lines = (tmp_path / "out" / "sweep.md").read_text().split("## Rounds")[1].strip().splitlines()
    heads = lines[0].strip("| ").split(" | ")
    assert heads[:5] == ["arm", "round", "n", "MACs cut", "parameters cut"]
    assert heads[5:] == ["accuracy as cut", "accuracy recovered", "accuracy at the round's end"]
    assert [line.split(" | ")[:3] for line in lines[2:]] == [["| rounds", "1", "2"], ["| rounds", "2", "2"]]
    assert f"{rounds.rounds[1].final.mean:.4f}" in lines[3]


def test_a_failed_run_ends_nothing_and_says_why(finished):
    _, _, report, text = finished
    assert [failure.folder for failure in report.failures] == ["hopeless-seed0", "hopeless-seed1"]
    assert "can't be met: with min_channels=1" in report.failures[0].error
    assert f"5/6 hopeless, seed 0: failed, {report.failures[0].error}; 1 s, about " in text


def test_a_line_for_each_run_with_the_time_left(finished):
    lines = [line for line in finished[3].splitlines() if "/6 " in line]
    assert len(lines) == 6
    assert "1/6 l1, seed 0: accuracy 0." in lines[0]
    assert lines[0].rstrip().endswith(" left")
    assert " left" not in lines[-1]


def test_what_runs_need_alike_is_made_once(finished):
    """The dense network of a seed is trained for the first of its runs, and the others find it."""
    _, out, _, _ = finished
    events = [
        (entry["artefact"], entry["event"])
        for folder in ("l1-seed0", "l1-seed1", "random-seed0", "random-seed1")
        for line in (out / folder / "log.jsonl").read_text().splitlines()
        if (entry := json.loads(line)).get("stage") in ("train", "dense_onnx")
    ]
    by_artefact = {key: [event for _, event in group] for key, group in groupby(sorted(events), lambda e: e[0])}
    assert len(by_artefact) == 4  # two stages, two seeds
    assert all(sorted(each) == ["found", "made"] for each in by_artefact.values())


def test_files_and_table_hold_what_the_report_does(finished):
    _, out, report, _ = finished
    assert SweepReport.model_validate_json((out / "sweep.json").read_text()) == report
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["prune.criterion"] for row in rows] == ["l1", "random", ""]
    assert float(rows[0]["quality_mean"]) == report.arms[0].quality.mean
    assert rows[2]["quality_mean"] == ""
    page = (out / "sweep.md").read_text()
    assert f"| l1 | 2 | {report.arms[0].quality.mean:.4f} ± {report.arms[0].quality.std:.4f} |" in page
    assert "| hopeless | 0 (2 failed) | - |" in page
    assert "macs=0.5: " in page
    assert "![Quality against multiply-adds and latency](sweep.png)" in page
    assert sweep_table(report).row_count == 3
    with Image.open(out / "sweep.png") as picture:
        assert picture.size == (1320, 576)


def test_networks_are_timed_when_all_runs_are_over(finished):
    _, out, report, text = finished
    assert (
        text.rindex("/6 hopeless, seed 1") < text.index("timing l1 beside dense") < text.index("timing random beside")
    )
    timing = json.loads((out / "timings" / "l1.json").read_text())
    assert [run.ms for run in report.runs if run.arm == "l1"] == [timing["ms"]["0"], timing["ms"]["1"]]
    assert [run.speedup for run in report.runs if run.arm == "l1"] == [timing["speedup"]["0"], timing["speedup"]["1"]]


def test_a_second_start_goes_on_with_what_is_missing(finished):
    path, out, report, _ = finished
    jobs = []

    def none(waiting):
        jobs.extend(job.name for job in waiting)
        return in_this_process(waiting)

    assert sweep(path, out, executor=none, reporter=quiet()).arms == report.arms
    assert jobs == ["hopeless-seed0", "hopeless-seed1"]  # what failed is tried again


@pytest.mark.parametrize(
    "other",
    [
        {"seeds": 1},
        {"grid": {"prune.criterion": ["l1"]}},
        {"arms": {"hopeless": {"prune.budget.macs": 0.002}}},
        {"set": {"train.epochs": 2}},
        {"recipe": "quickstart"},
    ],
)
def test_another_sweep_is_refused(finished, tmp_path, other):
    _, out, _, _ = finished
    with pytest.raises(RecipeError, match="out holds another sweep: give another --out, or its recipe, arms"):
        sweep(write_sweep(tmp_path, {**DATA, **other}), out, reporter=quiet())


def test_what_is_no_folder_of_a_sweep_is_refused(finished, tmp_path):
    path, out, _, _ = finished
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RecipeError, match="is not empty and holds no sweep"):
        sweep(path, tmp_path, reporter=quiet())
    with pytest.raises(RecipeError, match="is a file: give another by --out"):
        sweep(path, path, reporter=quiet())
    with held(out), pytest.raises(RecipeError, match="another run is at work in"):
        sweep(path, out, reporter=quiet())
    (tmp_path / "sweep.yaml").write_text("arms: 3")
    with pytest.raises(RecipeError, match="holds another sweep"):
        sweep(path, tmp_path, reporter=quiet())


@pytest.mark.thorough
def test_a_run_that_was_lost_is_made_again_to_the_same_result(finished, tmp_path):
    """All that its stages made is in the store; where files of networks are gone, runs keep their own timing."""
    path, out, report, _ = finished
    copied = tmp_path / "copied"
    shutil.copytree(out, copied)
    shutil.rmtree(copied / "l1-seed1")
    (copied / "random-seed0" / "slim.onnx").unlink()
    shutil.rmtree(copied / "timings")
    again = sweep(path, copied, executor=in_this_process, reporter=quiet())
    assert [arm.quality for arm in again.arms] == [arm.quality for arm in report.arms]
    log = (copied / "l1-seed1" / "log.jsonl").read_text()
    assert '"event": "found"' in log
    assert '"event": "made"' not in log
    latency = json.loads((copied / "random-seed0" / "report.json").read_text())["latency"]
    assert next(run.ms for run in again.runs if run.folder == "random-seed0") == latency["slim_ms"]
    assert [file.name for file in (copied / "timings").iterdir()] == ["l1.json"]


def test_a_sweep_may_grow(finished, tmp_path):
    """More seeds and arms, and another reference: what is there stays."""
    _, out, report, _ = finished
    grown = tmp_path / "grown"
    shutil.copytree(out, grown)
    jobs = []
    grid = {"prune.criterion": ["l2", "random", "l1"]}
    path = write_sweep(tmp_path / "file", {**DATA, "grid": grid, "seeds": 3, "reference": "random"})

    def none_now(waiting):
        for job in waiting:
            jobs.append(job.name)
            job.log.write_text("error: not now")
            yield job, Ending(2, 0.0)

    more = sweep(path, grown, executor=none_now, reporter=quiet())
    added = ["l2-seed0", "l2-seed1", "l2-seed2", "random-seed2", "l1-seed2"]
    assert [name for name in jobs if "hopeless" not in name] == added
    assert [family.references for family in more.families] == [["random"]]
    assert [(arm.arm, arm.n) for arm in more.arms][:3] == [("l2", 0), ("random", 2), ("l1", 2)]
    assert more.arms[2].quality == report.arms[0].quality


def cli(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr, result.stdout


def test_the_command_ends_in_1_if_some_runs_failed(finished, monkeypatch):
    path, out, report, _ = finished
    monkeypatch.setattr("structprune.sweep.on_this_machine", lambda count: in_this_process)
    code, error, output = cli("sweep", path, "--out", out, "--jobs", 2)
    assert code == 1
    assert f"hopeless-seed1 failed: {report.failures[1].error}" in " ".join(output.split())
    assert "6 runs, 4 of them finished before" in error


def test_mistakes_end_in_2_before_anything_is_written(tmp_path):
    path = write_sweep(tmp_path, {"grid": {"prune.criterion": ["l11"]}})
    code, error, _ = cli("sweep", path, "--out", tmp_path / "out")
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert error.startswith("error: ")
    assert "arm l11: prune.criterion: unknown criterion 'l11'" in error
