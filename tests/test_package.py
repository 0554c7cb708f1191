"""What the package is to those who import it: public names that stay functions, modules on demand, a quick start."""

import importlib
import subprocess
import sys

import pytest

import structprune as sp


def output_of(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_and_the_help_of_its_commands_import_no_torch():
    code = """
import sys
import structprune
from typer.testing import CliRunner
from structprune.cli import app
for arguments in (["--help"], ["--version"], ["run", "--help"], []):
    CliRunner().invoke(app, arguments)
print(structprune.__version__, [name for name in ("torch", "timm", "onnxruntime", "numpy") if name in sys.modules])
"""
    assert output_of(code) == f"{sp.__version__} []\n"


@pytest.mark.parametrize("name", sp.__all__)
def test_public_names_stay_what_they_are_beside_packages_of_the_same_name(name):
    before = getattr(sp, name)
    importlib.import_module("structprune.plan.allocation")
    importlib.import_module("structprune.run.api")
    importlib.import_module("structprune.recover.steps")
    importlib.import_module("structprune.verify.gate")
    assert getattr(sp, name) is before
    assert callable(before)
    assert name in dir(sp)


def test_modules_inside_are_there_without_an_import():
    code = "import structprune as sp; print(sp.errors.StoreError.__name__, sp.recipe.Recipe.__name__, sp.plan.__name__)"
    assert output_of(code) == "StoreError Recipe plan\n"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'structprune' has no attribute 'prnue'"):
        _ = sp.prnue
    with pytest.raises(ImportError):
        exec("from structprune import prnue")


def test_a_public_name_can_be_replaced_and_put_back():
    before = sp.plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sp, "plan", print)
        assert sp.plan is print
    assert sp.plan is before


def test_timm_can_be_imported_after_the_package_whatever_torchvision_is_there():
    assert output_of("import structprune, timm; print(timm.__name__)") == "timm\n"
