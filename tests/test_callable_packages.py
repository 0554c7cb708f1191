"""What type checkers are told of the packages that are called like a function is what those packages are."""

import importlib
import pkgutil

import pytest

from structprune import callable_packages


@pytest.mark.parametrize("name", ["plan", "recover", "run", "verify"])
def test_a_class_holds_what_the_package_offers(name):
    package = importlib.import_module(f"structprune.{name}")
    seen = getattr(callable_packages, f"{name.capitalize()}Package")
    held = {key for key in vars(seen) if not key.startswith("__")}
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert (
        {*package.__all__} - {name} <= held <= {*package.__all__, *modules}
    )  # a new recovery is one file, no edit here
    for key in held:
        assert getattr(seen, key) is getattr(package, key)
    assert seen.__call__ is package.__wrapped__
