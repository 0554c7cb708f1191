"""All that is wrong with a recipe is said at once: a line for each mistake, ten at most."""

import pickle

import pytest
import yaml

from structprune.errors import RecipeError
from structprune.recipe import check_recipe, read_recipe
from tests.recipe.files import QUICKSTART

QUICK = yaml.safe_load(QUICKSTART.read_text())


def lines_of(overrides):
    with pytest.raises(RecipeError) as caught:
        read_recipe(QUICKSTART, overrides)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{QUICKSTART}: ") and len(line) < 1500 for line in lines)
    return [line.removeprefix(f"{QUICKSTART}: ") for line in lines]


def test_mistakes_in_all_parts_are_said_at_once():
    given = ["seed=-1", "model.kwarg=1", "data.imagesize=8", "train.lr=fast", "train.epoch=1", "prune.criterion=l11",
             "runtime.thread=2", "bench.also=[torch, {engin: torch}, openvin]", "sed=1"]  # fmt: skip
    found = lines_of(given)
    starts = ["seed: Input should be greater than or equal to 0, not -1", "model.kwarg: unknown key 'kwarg': did you",
              "data.imagesize: unknown key 'imagesize': did you mean image_size", "train.lr: Input should be a valid",
              "train.epoch: unknown key 'epoch': did you mean epochs", "prune.criterion: unknown criterion 'l11': did",
              "runtime.thread: unknown key 'thread': did you mean threads",
              "bench.also.1.engin: unknown key 'engin': did you mean engine",
              "bench.also.2.engine: unknown engine 'openvin': did",
              "sed: unknown key 'sed': did you mean seed"]  # fmt: skip
    assert len(found) == len(starts)
    for line, start in zip(found, starts, strict=True):
        assert line.startswith(start)


def test_what_does_not_fit_together_is_said_at_once():
    found = lines_of(["data={source: images}", "recover=[least_squares]", "export.int8=true", "prune.criterion=taylor"])
    assert [line.partition(" ")[0] for line in found] == ["criterion", "recovery", "int8", "train"]
    assert "finetune needs them too" in found[-1]
    assert all(not line.startswith(("Value error", "Input")) for line in found)


def test_ten_mistakes_are_told_and_how_many_more_there_are():
    found = lines_of([f"bench.key{number}=1" for number in range(10)])
    assert [line.split(":")[0] for line in found] == [f"bench.key{number}" for number in range(10)]
    found = lines_of([f"bench.key{number}=1" for number in range(25)])
    assert len(found) == 11
    assert found[-1] == "and 15 more mistakes"


def test_a_misspelt_key_is_one_mistake_though_the_key_that_is_meant_is_missing():
    data = {**{key: value for key, value in QUICK.items() if key != "prune"}, "prun": QUICK["prune"]}
    with pytest.raises(RecipeError) as caught:
        check_recipe(data)
    assert str(caught.value).startswith("recipe: prun: unknown key 'prun': did you mean prune")
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="recipe: prune: Field required\nrecipe: zzz: unknown key 'zzz'"):
        check_recipe({**{key: value for key, value in QUICK.items() if key != "prune"}, "zzz": 1})


@pytest.mark.parametrize(
    ("size", "places"),
    [("big", ["data.image_size"]), ("[8, tall]", ["data.image_size.1"]), ("[8]", ["data.image_size.1"]),
     ("true", ["data.image_size"])],
)  # fmt: skip
def test_a_value_that_may_be_of_several_types_is_one_mistake(size, places, tmp_path):
    found = lines_of([f"data={{source: folder, path: {tmp_path}, image_size: {size}}}"])
    assert [line.partition(":")[0] for line in found] == places


def test_lines_hold_no_line_breaks_of_a_users():
    found = lines_of(["model.na\nme=1", 'prune.criterion="l\\n1"'])
    assert len(found) == 2


def test_an_error_of_several_lines_is_printable_and_can_be_pickled():
    error = RecipeError("a\tb", "c\nd", "\x1b[31m")
    assert str(error) == "a b\nc d\n\\x1b[31m"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
