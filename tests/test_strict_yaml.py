"""YAML that anyone may have written: one ValueError of one line for all that is not plain, bounded YAML."""

import itertools

import pytest
import yaml

from structprune import strict_yaml
from structprune.errors import RecipeError
from structprune.recipe import read_recipe
from tests.recipe.files import QUICKSTART, RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_read_as_yaml_does(path):
    assert strict_yaml.parse(path.read_text()) == yaml.safe_load(path.read_text())


def test_anchors_and_merges_that_make_little(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n"
    assert strict_yaml.parse(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}] * 2}
    assert strict_yaml.parse("") is None


LETTERS = "abcdefghij"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in itertools.pairwise(LETTERS)
)
BAD = {
    "a key twice": ("model: {name: a}\nprune: {}\nmodel: {name: b}", "line 3: the key 'model' comes twice"),
    "a key twice within": ("a: {b: 1, b: 1}", "line 1: the key 'b' comes twice"),
    "an anchor bomb": (BOMB, "aliases that make more than 50,000 values"),
    "a cycle": ("a: &a [*a]", "aliases that make more than"),
    "a cycle of mappings": ("&a {b: *a}", "aliases that make more than"),
    "a chain of anchors": (
        "a0: &a0 x\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(60)),
        "more than 50 levels",
    ),
    "deep lists": ("[" * 100_000, "nested deeper than 50 levels"),
    "deep mappings": ("{a: " * 50_000, "nested deeper than 50 levels"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(600)), "nested deeper than 50 levels"),
    "many values": ("- x\n" * 60_000, "more than 50,000 values"),
    "too large": ("#" * 300_000, "over the limit of 262,144"),
    "code": ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    "an impossible date": ("a: 2001-99-99", "month must be in"),
    "no number": ("a: !!int x", "invalid literal"),
    "a huge number": ("a: " + "9" * 6000, "limit|digits"),
    "a truth value as key": ("yes: 1", "the key 'yes' is not text"),
    "a list as key": ("? [a]\n: 1", "the key a list or mapping is not text"),
    "two documents": ("a: 1\n---\nb: 1", "expected a single document"),
    "an unknown alias": ("a: *b", "undefined alias"),
    "a control character": ("a: \0", "control characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_in_one_line(name, tmp_path):
    text, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        strict_yaml.parse(text)
    assert "\n" not in str(caught.value)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml is not YAML: ") as caught:
        read_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize("override", ["seed={a: 1, a: 2}", "seed=[[[[" + "[" * 60, "seed=*a", "seed=!!python/none x"])
def test_overrides_are_read_as_strictly(override):
    with pytest.raises(RecipeError, match="is not a YAML value"):
        read_recipe(QUICKSTART, [override])


@pytest.mark.parametrize(
    "override",
    ["train.epochs=true", "train.lr=.inf", "train.lr=.nan", "bench.seconds=.inf", "seed=true", "prune.max_ratio=true",
     "train.batch_size=yes", "prune.budget.macs=true", "train.weight_decay=.inf", "bench.pin=2",
     "x" * 5000 + "=1", "model.na\nme=1", "model.name=" + "x" * 5000, 'model.name="a\\nb"', "data.source=[1]",
     "recover=[{a: 1}]", "recover=5", "model=5", "prune.ignore=5", "bench.also=[5]", "bench.also=[[1]]", "data=null"],
)  # fmt: skip
def test_values_that_pydantic_would_take_or_that_break_the_line(override):
    with pytest.raises(RecipeError) as caught:
        read_recipe(QUICKSTART, [override])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_recipe_of_a_terabyte(tmp_path):
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match="over the limit"):
        read_recipe(tmp_path / "a.yaml")
