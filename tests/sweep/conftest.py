"""Runs in processes of their own find the networks of the tests, from wherever pytest was started."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _tests_on_the_path(monkeypatch):
    others = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *others]))
