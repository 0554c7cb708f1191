"""A registry is as before after `restored`, and has all records of its package."""

import sys
from types import SimpleNamespace

import pytest

from structprune.registry import Registry


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Of a package with one module, which adds a record where it is imported."""
    package = tmp_path / "shapes_of_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from structprune.registry import Registry\nSHAPES = Registry('shape', __name__)\n"
    )
    (package / "round.py").write_text(
        "from types import SimpleNamespace\nfrom . import SHAPES\nSHAPES.add(SimpleNamespace(name='round'))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import shapes_of_test

    yield shapes_of_test.SHAPES
    for name in ("shapes_of_test", "shapes_of_test.round"):
        sys.modules.pop(name, None)


def test_what_is_added_is_gone_afterwards_and_what_the_package_has_stays(registry: Registry):
    square = SimpleNamespace(name="square")
    assert registry.names_so_far == ()
    for _ in range(2):  # as a cell of a notebook that is run again
        with registry.restored():
            registry.add(square)
            assert list(registry) == ["round", "square"]
        assert list(registry) == ["round"]
    registry.add(square)
    with registry.restored(), pytest.raises(ValueError, match="a shape named 'square' is registered already"):
        registry.add(square)
    assert list(registry) == ["round", "square"]


def test_an_error_inside_changes_nothing_of_it(registry):
    square = SimpleNamespace(name="square")
    with pytest.raises(ValueError, match="registered already"), registry.restored():
        [registry.add(square), registry.add(square)]
    assert list(registry) == ["round"]
