"""`prune.surgery: merge` through a whole run."""

import json

import pytest

import structprune as sp
from structprune.errors import RecipeError
from structprune.recipe import check_recipe
from tests.run.small_network import RECIPE, short_turns

MERGED = {
    **RECIPE,
    "data": {**RECIPE["data"], "calibration": {"images": 48}},
    "train": {**RECIPE["train"], "epochs": 1},
    "prune": {**RECIPE["prune"], "surgery": "merge"},
    "recover": ["means", "least_squares"],
    "finetune": None,
}


@pytest.mark.thorough
def test_a_run_merges_and_its_report_says_what(tmp_path, capsys):
    with short_turns():
        report = sp.run(check_recipe(MERGED), tmp_path / "run")
    plan = sp.Plan.read(tmp_path / "run" / "plan.json")
    assert set(plan.merges["groups"]) == {"one", "two"}
    assert {g["name"]: g["merged_units"] for g in report["groups"]} == {
        name: 16 - len(plan.groups[name]["kept"]) for name in ("one", "two")
    }
    assert report["gate"]["passed"]
    assert ">merged</th>" in (tmp_path / "run" / "report.html").read_text()
    assert "2 groups merged" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["merges"]["axes"]["one.weight"]["0"]["by"] == "mean"


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"surgery": "fold"}, "prune.surgery.*'drop' or 'merge'"),
        ({"schedule": {"rounds": 2, "epochs": 0}}, "prune.surgery=merge merges once, as a mean of means"),
    ],
)
def test_what_can_not_be_merged_is_said_before_the_run(prune, message):
    with pytest.raises(RecipeError, match=message):
        check_recipe({**MERGED, "prune": {**MERGED["prune"], **prune}})


def test_units_that_training_takes_to_zero_are_better_dropped():
    training = {**RECIPE["train"], "methods": [{"method": "soft"}]}
    (line,) = (line for line in check_recipe({**MERGED, "train": training}).cautions if "surgery" in line)
    assert line.startswith("train.methods: soft takes filters to zero")
    dropped = {**MERGED, "prune": RECIPE["prune"], "train": training}
    assert not any("surgery" in line for line in check_recipe(dropped).cautions)
