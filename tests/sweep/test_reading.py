"""Arms by grids and by names; all recipes of a sweep checked before any runs."""

import pytest

from structprune.errors import RecipeError
from structprune.sweep import read_sweep
from structprune.sweep.arms import arms_of
from structprune.sweep.specs import SweepSpec
from tests.sweep.small_sweep import write_sweep

CUTS = {"4x": {"prune.budget.macs": 0.25}, "2x": {"prune.budget.macs": 0.5}}


def arms(**data):
    return arms_of(SweepSpec.model_validate({"recipe": "base.yaml", **data}))


def test_a_grid_is_all_combinations_of_its_axes():
    grid = {"prune.criterion": ["l1", "random"], "cut": CUTS}
    assert {arm.name: arm.settings for arm in arms(grid=grid)} == {
        "l1+4x": {"prune.criterion": "l1", "prune.budget.macs": 0.25},
        "l1+2x": {"prune.criterion": "l1", "prune.budget.macs": 0.5},
        "random+4x": {"prune.criterion": "random", "prune.budget.macs": 0.25},
        "random+2x": {"prune.criterion": "random", "prune.budget.macs": 0.5},
    }
    assert arms(grid=grid)[0].labels == {"prune.criterion": "l1", "cut": "4x"}


def test_several_grids_and_named_arms_stand_beside_each_other():
    grids = [{"prune.criterion": ["l1"], "cut": CUTS}, {"baseline": {"scratch-E": {"train": None}}, "cut": CUTS}, {}]
    names = [arm.name for arm in arms(grid=grids, arms={"dense-long": {"finetune.epochs": 9}})]
    assert names == ["l1+4x", "l1+2x", "scratch-E+4x", "scratch-E+2x", "dense-long"]


def test_values_that_are_not_text_are_called_by_their_key():
    values = {
        "prune.budget.macs": [0.25, 1],
        "finetune": [None],
        "bench.pin": [True],
        "prune.criterion": ["own.py:mine"],
    }
    assert [arm.name for arm in arms(grid=values)] == [
        f"macs={macs}+finetune=none+pin=true+own.py-mine" for macs in ("0.25", "1")
    ]


def test_an_axis_must_not_undo_what_another_sets():
    one, two = {"a": {"prune.budget.macs": 0.5}}, {"b": {"prune.budget": {"params": 0.5}}}
    with pytest.raises(RecipeError, match=r"grid: cut sets prune\.budget and undoes prune\.budget\.macs of an axis"):
        arms(grid={"how": one, "cut": two})
    assert arms(grid={"cut": two, "how": one})[0].settings == {**two["b"], **one["a"]}


def test_two_arms_of_one_name_are_refused():
    with pytest.raises(RecipeError, match="two arms would be called L1:"):
        arms(grid={"prune.criterion": ["l1"]}, arms={"L1": {"prune.criterion": "l2"}})


def test_too_many_runs_are_refused_before_they_are_listed():
    values = list(range(1, 101))
    grid = {"train.epochs": values, "finetune.epochs": values, "train.batch_size": values}
    with pytest.raises(RecipeError, match="1,000,000 runs are over the limit of 10,000: give fewer values"):
        arms(grid=grid)


def test_each_run_has_its_arms_recipe_and_seed(tmp_path):
    data = {"set": {"train.epochs": 3}, "grid": {"prune.criterion": ["l1", "fpgm"]}, "seeds": [4, 2]}
    sweep = read_sweep(write_sweep(tmp_path, {**data, "arms": {"no-training": {"train": None}}}))
    runs = {run.name: run.recipe for run in sweep.runs}
    assert list(runs) == [f"{arm}-seed{seed}" for arm in ("l1", "fpgm", "no-training") for seed in (4, 2)]
    assert (runs["fpgm-seed2"].prune.criterion, runs["fpgm-seed2"].seed) == ("fpgm", 2)
    assert runs["fpgm-seed2"].train.epochs == 3
    assert runs["no-training-seed4"].train is None
    assert runs["no-training-seed4"].prune.criterion == "l1"  # what one arm sets is not another's


def test_a_recipe_that_comes_with_the_package_and_a_number_of_seeds(tmp_path):
    path = write_sweep(tmp_path, {"recipe": "quickstart", "grid": {"prune.criterion": ["l1"]}, "seeds": 3})
    assert [(run.seed, run.recipe.model.name) for run in read_sweep(path).runs] == [(n, "resnet10t") for n in range(3)]


def test_mistakes_of_all_arms_are_said_at_once(tmp_path):
    grid = {"prune.criterion": ["l1", "l11", "fpgm", "thinet"], "cut": {**CUTS, "odd": {"prune.budgt.macs": 0.5}}}
    path = write_sweep(tmp_path, {"grid": grid, "arms": {"deep": {"prune.criterion.name": "l1"}}})
    with pytest.raises(RecipeError) as error:
        read_sweep(path)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{path}: arms l1+odd, l11+odd, fpgm+odd and 1 more: prune.budgt: unknown key 'budgt'")
    assert lines[1].startswith(f"{path}: arms l11+4x, l11+2x, l11+odd: prune.criterion: unknown criterion 'l11'")
    assert lines[2].startswith(f"{path}: arms thinet+4x, thinet+2x: criterion thinet needs calibration images")
    assert lines[3] == f"{path}: arm deep: prune.criterion.name: criterion is a value in this recipe and has no keys"
    assert len(lines) == 4


def test_a_mistake_of_the_recipe_is_of_all_arms(tmp_path):
    path = write_sweep(tmp_path, {"set": {"train.epoch": 1}, "grid": {"prune.criterion": ["l1", "l2"]}})
    with pytest.raises(RecipeError, match=r"small\.yaml: all arms: train\.epoch: unknown key 'epoch'"):
        read_sweep(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"grid": {"prune.criterion": "l1"}}, "grid.0.prune.criterion: 'l1' is one value: give a list of them"),
        ({"grid": {"prune.criterion": []}}, "has no values"),
        ({"grid": {"prune.criterion": ["l1", "l1"]}}, "has a value twice"),
        ({"grid": {"finetune": [None, {"epochs": 1}]}}, "has no short name for a table: name it"),
        ({"grid": {"cut": {"a/b": {"prune.budget.macs": 0.5}}}}, "'a/b' can't be a name"),
        ({"grid": {"seed": [1, 2]}}, "give seeds beside it"),
        ({"arms": {"a": {"seed": 1}}}, "give seeds beside it"),
        ({"arms": {"a": {"prune..macs": 1}}}, "'prune..macs' is not a key of a recipe"),
        ({"grid": {"prune.criterion": ["l1"]}, "seeds": [0, 0]}, "has a seed twice"),
        ({"grid": {"prune.criterion": ["l1"]}, "seeds": 0}, "0 seeds: give 1 to 10,000"),
        ({"grid": {"prune.criterion": ["l1"]}, "seeds": []}, "seeds: there is no seed"),
        ({"grid": {"prune.criterion": ["l1"]}, "seeds": [-1]}, "seeds: [-1]: a seed is a number of 0 to"),
        ({"seeds": 2}, "there is nothing to try: give a grid, or arms"),
        ({"grids": {"prune.criterion": ["l1"]}}, "unknown key 'grids': did you mean grid"),
        ({"recipe": "quickstrt", "arms": {"a": {}}}, "did you mean quickstart"),
    ],
)
def test_files_that_are_no_sweep(tmp_path, data, message):
    with pytest.raises(RecipeError) as error:
        read_sweep(write_sweep(tmp_path, data))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
