"""What a report says of training and rounds: the curves are those of the epochs."""

import csv
import json

import pytest

import structprune as sp
from structprune.recipe import check_recipe
from structprune.report import render_html
from structprune.report.page_data import plots_of, trained_rounds
from structprune.report.records import Report
from structprune.report.training_records import Epoch, Epochs
from tests.run.small_network import RECIPE, short_turns

LENGTHS = {"dense": 3, "slim": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves") / "run"
    dense = {**RECIPE["train"], "epochs": 3, "val_interval": 1, "patience": 9}
    with short_turns():
        prune = {**RECIPE["prune"], "schedule": {"rounds": 2, "epochs": 1}}
        sp.run(check_recipe({**RECIPE, "train": dense, "prune": prune}), folder)
    return folder


def test_the_report_has_each_epoch_as_the_summary_has_it(folder):
    epochs = json.loads((folder / "report.json").read_text())["epochs"]
    for name, length in LENGTHS.items():
        rows = list(csv.DictReader((folder / f"{name}.summary.csv").open()))
        assert [row["epoch"] for row in epochs[name]] == list(range(1, length + 1))
        assert [row["train_loss"] for row in epochs[name]] == pytest.approx([float(row["train_loss"]) for row in rows])
        values = [float(row["eval_accuracy"]) for row in rows]
        assert [row["value"] for row in epochs[name]] == pytest.approx(values)
        assert {row["metric"] for row in epochs[name]} == {"accuracy"}


def test_the_curve_of_the_slim_network_goes_through_all_rounds(folder):
    data = json.loads((folder / "report.json").read_text())
    epochs = data["epochs"]
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [event["train_loss"] for event in logged if event["event"] == "epoch" and event["network"] == "slim"]
    assert [row["train_loss"] for row in [*epochs["rounds"][0], *epochs["slim"]]] == pytest.approx(losses)
    report = Report.model_validate(data)
    assert [row.epoch for row in report.epochs.throughout()] == [1, 2, 3]
    line = plots_of(report)["loss"]["lines"][1]
    assert (line["label"], line["x"], line["y"]) == ("slim", [1, 2, 3], pytest.approx(losses))
    page = " ".join((folder / "report.html").read_text().split())
    assert "in round 1 for epoch 1, in round 2 for epochs 2 to 3." in page


def test_a_round_that_trains_nothing_is_passed_over():
    epoch = Epoch(epoch=1, train_loss=1.0, lr=0.1)
    assert trained_rounds(Epochs(rounds=[[], [epoch]], slim=[epoch])) == [(2, 1, 1), (3, 2, 2)]
    assert trained_rounds(Epochs(rounds=[[epoch], []], slim=[])) == [(1, 1, 1)]
    assert trained_rounds(Epochs(slim=[epoch])) == []


def test_the_page_draws_them_and_says_what_they_are(folder):
    page = (folder / "report.html").read_text()
    assert 'aria-label="Training loss by epoch, of the dense and the slim network' in page
    assert "<h2>Training</h2>" in page


def test_a_training_of_one_epoch_is_no_curve_and_the_page_says_so(folder):
    data = json.loads((folder / "report.json").read_text())
    data["epochs"] |= {"slim": data["epochs"]["slim"][:1], "rounds": []}
    page = render_html(Report.model_validate(data), "name")
    assert "slim: one epoch, in the table." in page
    assert "dense: one epoch" not in page
    data["epochs"]["dense"] = []
    page = render_html(Report.model_validate(data), "name")
    assert "slim: one epoch, in the table." in page
    assert "Epoch by epoch" in page
    assert 'data-plot="loss"' not in page


def test_the_budget_of_a_cut_in_rounds_is_what_was_asked_for(folder):
    report = json.loads((folder / "report.json").read_text())
    assert report["budget"] == {"macs": 0.5}
    assert len(report["rounds"]) == 2
    assert "budget macs 0.5" in " ".join((folder / "report.html").read_text().split())


def test_a_report_of_an_earlier_version_has_no_curves(folder):
    data = json.loads((folder / "report.json").read_text())
    del data["epochs"]
    report = Report.model_validate(data)
    assert report.epochs.dense == report.epochs.slim == []
    assert "<h2>Training</h2>" not in render_html(report, "name")
