"""Criteria of a user's own, named `file.py:Name`: in Python, in a recipe, and what a run makes of what they need."""

import sys

import pytest
import torch
from torch import nn

import structprune as sp
from structprune import inspection
from structprune.criteria import CRITERIA
from structprune.errors import RecipeError
from structprune.plan import ALLOCATIONS
from structprune.progress import Reporter
from structprune.recipe import check_recipe, read_recipe
from structprune.run import runner_of
from structprune.run.stage import STAGES
from structprune.store.artefacts import Artefacts
from tests.run.small_network import RECIPE

PLAIN = """
def largest(group):
    filters = group.weights[0]
    return group.per_unit(filters, filters.positions().abs().amax(1))
"""
LARGEST = f"""
import structprune as sp

@sp.criterion("largest_of_all", "the largest weight of a filter", needs=[{{needs}}]){PLAIN}
"""
TWO_ORDERS = """
import structprune as sp
import torch

@sp.criterion("two_orders", "x", needs=["samples", "widths"], combine="{combine}")
def two_orders(group):
    places = torch.arange(float(group.units))
    return [places, 4 * group.units - 2 * places]
"""
NARROWEST = """
def narrowest(choices, scores, load):
    return {choice.group.name: int(choice.widths[0]) for choice in choices}
"""
CALIBRATED = {**RECIPE["data"], "calibration": {"images": 64}}


@pytest.fixture(autouse=True)
def _registries():
    with ALLOCATIONS.restored():  # criteria are after each test
        yield
    sys.modules.pop("criterion_of_mine", None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "criterion_of_mine.py"


def recipe_with(path, tell=lambda line: None, **changes):
    prune = {**RECIPE["prune"], "criterion": f"{path}:largest", **changes.pop("prune", {})}
    return check_recipe({**RECIPE, "train": None, "finetune": None, "prune": prune, **changes}, tell=tell)


@pytest.mark.parametrize(("text", "name"), [(PLAIN, "largest"), (LARGEST.format(needs=""), "largest_of_all")])
def test_python_takes_a_file_as_it_takes_a_function(path, text, name):
    path.write_text(text)
    graph = sp.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval(), torch.randn(1, 3, 8, 8))
    scores = sp.score(graph, f"{path}:largest")
    assert scores.criterion == name
    wanted = graph.model[0].weight.detach().abs().amax((1, 2, 3)).double()
    torch.testing.assert_close(torch.from_numpy(scores.values["0"]), wanted)


def test_a_recipe_names_a_file_and_the_run_makes_what_it_needs(path, tmp_path):
    path.write_text(LARGEST.format(needs="'activations'"))
    with pytest.raises(RecipeError, match="criterion largest_of_all needs calibration images"):
        recipe_with(path)
    runner = runner_of(recipe_with(path, data=CALIBRATED), Reporter(), Artefacts(tmp_path))
    plan, scores = runner.value("plan"), runner.value("scores")
    assert plan.criterion == scores.criterion == "largest_of_all"
    assert scores.values.keys() == plan.groups.keys()


def test_one_that_ranks_for_widths_gets_them(path, tmp_path):
    path.write_text(LARGEST.format(needs="'widths'"))
    recipe = recipe_with(path, data=CALIBRATED)
    runner = runner_of(recipe, Reporter(), Artefacts(tmp_path))
    assert runner.value("scores").widths == runner.value("widths").widths
    assert runner.value("first_scores").criterion == "l1"
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"model: {{source: '{RECIPE['model']['source']}'}}\ndata: {{source: digits, image_size: 8, calibration: "
        "{images: 64}}\nprune: {criterion: criterion_of_mine.py:largest, budget: {macs: 0.5}}\n"
    )
    with pytest.raises(RecipeError, match="largest_of_all ranks for the widths of a plan: scan by another"):
        inspection.scan(file)


def test_a_scan_combines_scores_as_the_recipe_says(path, tmp_path):
    """By whatever way the criterion has itself."""
    losses = []
    for own, asked in (("leading", "max"), ("max", None), ("leading", None)):
        path.write_text(TWO_ORDERS.format(combine=own))
        with CRITERIA.restored():
            prune = {"criterion": f"{path}:two_orders", "allocation": "sensitivity", "combine": asked}
            recipe = recipe_with(path, data=CALIBRATED, prune=prune)
            losses.append(runner_of(recipe, Reporter(), Artefacts(tmp_path)).value("scores").sensitivity.losses)
        sys.modules.pop("criterion_of_mine")
    assert losses[0] == losses[1] != losses[2]


def test_scores_and_plan_hang_on_the_text_of_the_file(path):
    specs = []
    for needs in ("", "", " "):
        path.write_text(LARGEST.format(needs=needs))
        with CRITERIA.restored():
            recipe = recipe_with(path)
            specs.append([STAGES[name].spec(recipe) for name in ("scores", "costs", "form", "plan", "rank")])
        sys.modules.pop("criterion_of_mine")
    for first, same, other in zip(*specs, strict=True):
        assert first == same != other


def test_what_is_run_to_check_a_recipe_is_said_once(path, tmp_path, capsys):
    path.write_text(PLAIN + NARROWEST)
    line, lines = f"runs code of {path}, as the module criterion_of_mine", []
    recipe = recipe_with(path, lines.append, prune={"allocation": f"{path}:narrowest"})
    assert lines == [line]
    runner_of(recipe, Reporter(), Artefacts(tmp_path)).value("plan")
    assert "runs code" not in capsys.readouterr().err
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "model: {name: test_resnet, kwargs: {in_chans: 1, num_classes: 10}}\ndata: {source: digits, image_size: 16}\n"
        "prune: {criterion: criterion_of_mine.py:largest, budget: {macs: 0.5}}\n"
    )
    read_recipe(file)
    assert capsys.readouterr().err == f"{line}\n"
    inspection.inspect_model(str(file), tell=lines.append)
    assert lines == [line, line]


def test_code_that_is_not_there(path):
    path.write_text("largest = 3\n")
    with pytest.raises(RecipeError, match=r"criterion: .*:largest is 3: name a function"):
        recipe_with(path)
    with pytest.raises(RecipeError, match=r"prune\.criterion: there is no file nothing"):
        recipe_with("nothing.py")
