"""What the package is to those who import it: public names, packages that are called, modules on demand."""

import inspect
import pickle
import pkgutil
import subprocess
import sys
from importlib import import_module
from types import FunctionType

import pytest

import structprune as sp

CALLED = ["plan", "recover", "run", "verify"]  # packages that are called like their function
PACKAGES = [module.name for module in pkgutil.walk_packages(sp.__path__, f"{sp.__name__}.") if module.ispkg]


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


@pytest.mark.thorough
def test_what_documents_are_made_of_imports_no_counter_of_macs():
    code = """
import sys
import structprune.generated_documents, structprune.schemas
print("fvcore" in sys.modules)
"""
    assert output_of(code) == "False\n"


@pytest.mark.parametrize("name", sp.__all__)
def test_public_names_stay_what_they_are_when_modules_inside_are_imported(name):
    before = getattr(sp, name)
    for module in ("plan.allocations", "run.api", "recover.method_sequence", "verify.gate"):
        import_module(f"structprune.{module}")
    assert getattr(sp, name) is before
    assert callable(before)
    assert name in dir(sp)


@pytest.mark.parametrize("name", CALLED)
def test_a_package_that_is_called_has_the_signature_and_the_documentation_of_its_function(name):
    package = getattr(sp, name)
    function = getattr(package, name)
    assert isinstance(function, FunctionType)
    assert package is import_module(f"structprune.{name}")
    assert inspect.signature(package) == inspect.signature(function)
    assert inspect.getdoc(package).startswith(inspect.getdoc(function))
    assert "\n\nThe package: " in inspect.getdoc(package)
    assert pickle.loads(pickle.dumps(package)) is package  # as a function can be, for another process


def test_a_package_that_is_called_calls_its_function():
    with pytest.raises(sp.errors.StructPruneError, match=r"plan: graph=3: give what structprune\.trace gives"):
        sp.plan(3, 4, budget={"macs": 0.5})
    with pytest.raises(TypeError, match="'budget'"):
        sp.plan(3, 4)


@pytest.mark.parametrize("package", ["structprune", *PACKAGES])
def test_no_name_of_a_package_hides_a_module_of_it(package):
    loaded = import_module(package)
    for module in pkgutil.iter_modules(loaded.__path__):
        if module.name != "__main__":  # which runs the command
            inside = import_module(f"{package}.{module.name}")
            assert getattr(loaded, module.name) is inside


@pytest.mark.thorough
def test_modules_inside_are_there_without_an_import():
    code = """
import structprune as sp
print(sp.errors.StoreError.__name__, sp.recipe.Recipe.__name__, sp.plan.allocations.Load.__name__, callable(sp.plan))
print(sp.run.stages.__name__, sp.verify.Gate.__name__, sp.recover.means.__name__)
"""
    shown = "StoreError Recipe Load True\nstructprune.run.stages Gate structprune.recover.means\n"
    assert output_of(code) == shown


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


@pytest.mark.thorough
def test_timm_can_be_imported_after_the_package_whatever_torchvision_is_there():
    assert output_of("import structprune, timm; print(timm.__name__)") == "timm\n"
