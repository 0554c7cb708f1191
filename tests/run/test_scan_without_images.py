"""What a recipe does that has no calibration images, or too few, and names no allocation."""

import pytest
import yaml
from torch import Tensor, nn

from structprune.errors import BudgetError
from structprune.progress import Reporter
from structprune.recipe import check_recipe, read_recipe
from structprune.run import runner_of
from structprune.store.artefacts import Artefacts
from tests.run.small_network import RECIPE, Small


class Particular(Small):
    """Takes no negative numbers, which digits are not."""

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, nn.Parameter) and x.device.type == "cpu" and bool((x < 0).any()):
            raise ValueError("a negative pixel")
        return super().forward(x)


def recipe(**changes):
    return check_recipe({**RECIPE, "train": None, "finetune": None, **changes})


def plan_of(checked, folder):
    runner = runner_of(checked, Reporter(), Artefacts(folder))
    return runner.value("plan"), runner.value("scores")


def pruned(**changes):
    return {**RECIPE["prune"], **changes}


@pytest.mark.parametrize(
    ("changes", "allocation"),
    [
        ({}, "knapsack"),
        ({"prune": pruned(allocation="auto")}, "knapsack"),
        ({"data": {**RECIPE["data"], "calibration": {"images": 64}}}, "knapsack"),
        ({"prune": pruned(allocation="global")}, "global"),
        ({"train": {**RECIPE["train"], "methods": ["soft"]}}, "uniform"),
        ({"train": {**RECIPE["train"], "methods": ["slimming"]}}, "knapsack"),
    ],
)
def test_the_allocation_of_a_recipe_that_names_none(changes, allocation, tmp_path):
    checked = recipe(**changes)
    assert checked.prune.allocation == allocation
    if checked.train is not None:
        assert not any("allocation" in line for line in checked.cautions)
    written = tmp_path / "recipe.yaml"
    written.write_text(yaml.safe_dump(checked.model_dump(mode="json", exclude_none=True)))
    assert read_recipe(written).prune.allocation == allocation  # a run's recipe says which it was


@pytest.mark.parametrize("allocation", ["auto", "sensitivity"])
def test_without_images_the_scan_is_of_random_inputs(tmp_path, allocation):
    plan, scores = plan_of(recipe(prune=pruned(allocation=allocation)), tmp_path)
    assert scores.sensitivity.inputs == "random"
    assert scores.sensitivity.losses.keys() == plan.groups.keys()
    assert plan.macs["slim"] <= 0.5 * plan.macs["dense"]
    scan = {"images": 6, "ratios": [0.5]}
    _, fewer = plan_of(recipe(prune=pruned(allocation=allocation, scan=scan)), tmp_path)
    assert {len(curve) for curve in fewer.sensitivity.losses.values()} == {2}


def test_few_images_are_said_to_be_too_few(tmp_path):
    data = {**RECIPE["data"], "calibration": {"images": 16}}
    plan, scores = plan_of(recipe(data=data), tmp_path)
    assert scores.sensitivity.inputs == "random"
    assert any("16 calibration images are too few for a scan, which takes two batches of 16" in x for x in plan.notes)
    _, scores = plan_of(recipe(data={**RECIPE["data"], "calibration": {"images": 17}}), tmp_path)
    assert scores.sensitivity.inputs == "samples"


def test_where_nothing_can_be_scanned_all_groups_get_the_same_ratio(tmp_path):
    model = {"source": f"{__name__}:Particular"}
    plan, scores = plan_of(recipe(model=model), tmp_path)
    assert not scores.sensitivity.losses
    (note,) = [line for line in plan.notes if "does not run on random inputs" in line]
    assert note.endswith("Without a scan all groups get the same ratio")
    assert plan.macs["slim"] <= 0.5 * plan.macs["dense"]
    even, _ = plan_of(recipe(model=model, prune=pruned(allocation="uniform")), tmp_path)
    assert plan.widths == even.widths
    with pytest.raises(
        BudgetError, match=r"allocation sensitivity needs a scan, and this one has no losses: .* random"
    ):
        plan_of(recipe(model=model, prune=pruned(allocation="sensitivity")), tmp_path)


def test_a_criterion_that_ranks_for_widths_keeps_the_notes_of_the_scan(tmp_path):
    plan, scores = plan_of(recipe(prune=pruned(criterion="l1_greedy")), tmp_path)
    assert scores.widths == plan.widths
    assert sum("made by random inputs" in line for line in plan.notes) == 1
