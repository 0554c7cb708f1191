"""Runs in processes of their own find the networks of the tests, from wherever pytest was started."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _tests_on_the_path() -> Iterator[None]:
    """Before a cluster starts, whose workers keep the environment of then."""
    others = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *others]))
        yield
