"""A bound of quality as a budget: the search for the smallest network within it, its verdict and its exit code."""

import json

import pytest
import torch
import yaml
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.errors import BudgetError, RecipeError
from structprune.recipe import check_recipe
from structprune.report import Report, render_html, report_table
from structprune.run import quality_search as search_module
from structprune.run.stages import surgery
from tests.run.small_network import RECIPE, short_turns

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(8, 64), nn.Linear(64, 4)

    def forward(self, x):
        return self.two(self.one(x).relu())

class Numbers(torch.utils.data.Dataset):
    def __init__(self, count, scale):
        self.x = scale * torch.randn(count, 8, generator=torch.Generator().manual_seed(count))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index]

def data():
    # what it is chosen by is all alike, so that every cut agrees; what it is measured on is not
    return {"train": Numbers(64, 1.0), "validation": Numbers(20, 0.0), "test": Numbers(100, 1.0)}

def plain():
    return {"train": Numbers(64, 1.0), "validation": Numbers(50, 1.0), "test": Numbers(40, 1.0)}
"""


@pytest.fixture(scope="module", autouse=True)
def _short():
    with short_turns():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounds")
    (folder / "nets_of_bounds.py").write_text(OWN)
    return folder


def recipe(place, budget, source="plain", **prune):
    path = place / f"{'-'.join(budget)}-{source}.yaml"
    told = {
        "model": {"source": "nets_of_bounds.py:Net"},
        "data": {"source": f"nets_of_bounds.py:{source}", "labels": False},
        "prune": {"budget": budget, "align": 1, **prune},
        "bench": {"seconds": 0.05},
    }
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.fixture(scope="module")
def bounded(tmp_path_factory):
    """A finished run, and what it told on its way."""
    folder = tmp_path_factory.mktemp("bounded")
    prune = {"budget": {"quality_drop": 0.05}, "align": 1, "search": {"trials": 4}}
    (folder / "digits.yaml").write_text(yaml.safe_dump({**RECIPE, "finetune": None, "prune": prune}))
    report = sp.run(folder / "digits.yaml", folder / "run")
    return report, [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


def test_the_smallest_network_within_the_bound_is_taken(bounded):
    report, _ = bounded
    search = report["search"]
    assert report["budget"] == search["asked"] == {"quality_drop": 0.05}
    assert search["held"] == "quality"
    assert len(search["trials"]) == 4
    within = [trial for trial in search["trials"] if trial["within"]]
    assert all(trial["found"]["quality_drop"] <= 0.05 for trial in within)
    assert all(trial["found"]["quality_drop"] > 0.05 for trial in search["trials"] if not trial["within"])
    assert search["budget"] == min((trial["budget"] for trial in within), key=lambda budget: budget["macs"])
    assert report["macs"]["slim"] / report["macs"]["dense"] <= search["budget"]["macs"]
    assert report["gate"]["passed"]


def test_the_search_halves_what_is_left(bounded):
    report, _ = bounded
    least, most = 0.0, 1.0  # parts of the way from no cut
    for trial in report["search"]["trials"]:
        assert trial["budget"]["macs"] == pytest.approx(1 - (least + most) / 2)
        least, most = (1 - trial["budget"]["macs"], most) if trial["within"] else (least, 1 - trial["budget"]["macs"])


def test_what_is_chosen_by_is_not_what_is_measured_on(bounded):
    report, _ = bounded
    (bound,) = report["search"]["bounds"]
    assert report["search"]["images"] == 142  # a tenth of the training data
    assert report["quality"]["images"] == 360
    assert bound["held_out"] == pytest.approx(report["quality"]["dense"] - report["quality"]["final"])
    chosen = next(t for t in report["search"]["trials"] if t["budget"] == report["search"]["budget"])
    assert bound["validation"] == pytest.approx(chosen["found"]["quality_drop"])
    assert bound["met"] == (bound["held_out"] <= 0.05 + 1e-9)


def test_the_dense_network_is_trained_once(bounded):
    _, log = bounded
    made = [event["stage"] for event in log if event.get("event") == "made"]
    assert made.count("train") == 1
    assert made.count("scores") == 1
    assert made.count("plan") == 4  # that of the network taken is found again


def test_the_verdict_tells_the_bound(bounded):
    report, _ = bounded
    text = report["verdict"]["text"]
    assert "quality drop" in text
    assert "where 0.05 was asked for" in text
    assert "of 4 networks tried" in text
    assert text.split(";")[0] in report_table(Report.model_validate(report), "").title


def test_the_page_shows_what_was_tried(bounded):
    report, _ = bounded
    page = render_html(Report.model_validate(report), "bounded")
    tried = page.partition("<h2>Networks tried")[2].partition("</table>")[0]
    assert tried.count("<tr>") == 1 + len(report["search"]["trials"])
    assert tried.count(">taken<") == 1
    assert f"{report['search']['bounds'][0]['held_out']:.4f}" in page


def test_a_bound_that_held_out_data_shows_missed_has_its_own_exit_code(place):
    path = recipe(place, {"agreement": 0.99}, "data")
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(place / "missed")])
    assert result.exit_code == 4, result.output
    report = json.loads((place / "missed" / "report.json").read_text())
    (bound,) = report["search"]["bounds"]
    assert bound["validation"] == 1.0
    assert bound["held_out"] < 0.99
    assert not bound["met"]
    assert report["verdict"]["state"] != "good"
    assert "missed" in report["verdict"]["text"].split(";")[0] or "broken" in report["verdict"]["text"].split(";")[0]
    assert (place / "missed" / "slim.onnx").is_file()  # the gate has proven it: it is what was planned
    again = CliRunner().invoke(app, ["run", str(path), "--out", str(place / "missed"), "--resume"])
    assert again.exit_code == 4


def test_a_cost_within_the_bound_is_met_at_once(place):
    report = sp.run(recipe(place, {"macs": 0.9, "agreement": 0.2}), place / "at-once")
    assert report["search"]["held"] == "cost"
    assert len(report["search"]["trials"]) == 1
    assert report["search"]["budget"] == {"macs": 0.9}
    assert "the cost that was asked for" in report["verdict"]["text"]


def test_a_cost_beyond_the_bound_is_neared(place):
    path = recipe(place, {"macs": 0.2, "params": 0.3, "agreement": 0.9}, search={"trials": 5})
    report = sp.run(path, place / "neared")
    search = report["search"]
    assert search["held"] == "quality"
    assert search["trials"][0]["budget"] == {"macs": 0.2, "params": 0.3}
    assert not search["trials"][0]["within"]
    way = [(1 - search["budget"]["macs"]) / 0.8, (1 - search["budget"]["params"]) / 0.7]
    assert 0 < way[0] < 1
    assert way[0] == pytest.approx(way[1])
    assert report["verdict"]["state"] == "poor"
    assert "where 0.2 was asked for" in report["verdict"]["text"]


def test_budgets_of_one_plan_are_one_trial(place):
    """Of 64 channels in steps of 32, 32 or 64 stay: a search that halves seven times tries the one that is a cut."""
    path = recipe(place, {"agreement": 0.1}, align=32)
    report = sp.run(path, place / "steps")
    assert [trial["macs"] for trial in report["search"]["trials"]] == [0.5]
    with pytest.raises(BudgetError, match="no network that was tried"):
        sp.run(recipe(place, {"agreement": 1.0}, align=32), place / "steps-none")


@pytest.mark.thorough
def test_a_speed_and_a_bound(place, monkeypatch):
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")
    report = sp.run(recipe(place, {"speedup": 1.01, "agreement": 0.1}, planning_seconds=5), place / "speed")
    assert report["search"]["held"] == "cost"
    assert report["search"]["budget"] == {"speedup": 1.01}


def test_parts_of_the_way_to_a_speedup_are_even_in_time():
    wanted = sp.recipe.BudgetSpec(speedup=2.0, agreement=0.9)

    class Graph:
        groups = ()

        def macs(self):
            return 1000

        params = macs

    class Runner:
        def value(self, name):
            return Graph()

    at = search_module.budgets_towards(Runner(), wanted)
    assert at(1.0).speedup == 2.0
    assert at(0.5).speedup == pytest.approx(4 / 3)  # three quarters of the time


def test_a_network_whose_gate_fails_is_not_taken(place, monkeypatch):
    verify, seen = surgery.verify, []

    def wrong_once(*arguments, **options):
        gate = verify(*arguments, **options)
        if not seen:
            gate.float64.fail("made to fail")
        seen.append(gate)
        return gate

    monkeypatch.setattr(surgery, "verify", wrong_once)
    path = recipe(place, {"agreement": 0.1}, search={"trials": 2})
    told = yaml.safe_load(path.read_text())
    path.write_text(
        yaml.safe_dump({**told, "recover": ["means"], "data": {**told["data"], "calibration": {"images": 32}}})
    )
    report = sp.run(path, place / "gate" / "run")
    first, second = report["search"]["trials"]
    assert (first["within"], first["error"]) == (False, "its gate failed: float64: made to fail")
    assert second["within"]
    assert report["search"]["budget"] == second["budget"] == {"macs": 0.75}
    assert report["gate"]["passed"]


def test_a_bound_that_no_network_keeps_is_refused(place):
    path = recipe(place, {"agreement": 1.0}, search={"trials": 2})
    with pytest.raises(
        BudgetError, match=r"no network that was tried is within the bound \(agreement 1\): the nearest"
    ):
        sp.run(path, place / "none")
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(place / "none-cli")])
    assert result.exit_code == 2
    assert result.stderr.count("error:") == 1


def test_an_interrupted_search_goes_on(place, monkeypatch):
    path = recipe(place, {"agreement": 0.8}, search={"trials": 4})
    whole = sp.run(path, place / "whole" / "run")
    found, count = search_module.found_beside, [0]

    def interrupted(*arguments):
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return found(*arguments)

    monkeypatch.setattr(search_module, "found_beside", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sp.run(path, place / "parts" / "run")
    monkeypatch.undo()
    report = sp.run(path, place / "parts" / "run", resume=True)
    assert report["search"] == whole["search"]
    assert report["groups"] == whole["groups"]
    log = [json.loads(line) for line in (place / "parts" / "run" / "log.jsonl").read_text().splitlines()]
    made = [event["artefact"] for event in log if event.get("event") == "made"]
    assert len(made) == len(set(made))  # nothing is made twice


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune": {"budget": {"macs": 0.5}, "search": {"trials": 3}}}, "search is for a bound of quality"),
        (
            {"prune": {"budget": {"quality_drop": 0.1}, "search": {"epochs": 2}}, "finetune": None},
            "search.epochs is of fine-tuning",
        ),
        ({"prune": {"budget": {"quality_drop": -0.1}}}, "greater than or equal to 0"),
        ({"prune": {"budget": {"agreement": 1.1}}}, "less than or equal to 1"),
        ({"prune": {"budget": {"quality_dorp": 0.1}}}, "did you mean quality_drop"),
    ],
)
def test_bad_bounds(changes, message):
    with pytest.raises(RecipeError, match=message):
        check_recipe({**RECIPE, **changes}, "here")


def test_a_task_without_an_agreement_is_refused(place):
    path = recipe(place, {"agreement": 0.9})
    told = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**told, "task": "embedding"}))
    with pytest.raises(RecipeError, match=r"task embedding measures no agreement.*cosine with dense.*quality_drop"):
        sp.run(path, place / "embedding")
    assert not (place / "embedding").exists()
    assert torch.is_grad_enabled()
