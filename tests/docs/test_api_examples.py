"""The examples of all public functions, as one session in the order of docs/api.md."""

import doctest
import inspect
import json
import re
import shutil
from pathlib import Path
from pkgutil import resolve_name

import torch
from torch import nn

import structprune as sp

from .blocks import ROOT


def shown():
    """What docs/api.md shows, in order: functions, and the methods of classes after their class."""
    for path in re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE):
        module, name = path.rsplit(".", 1)
        value = getattr(resolve_name(module), name)
        yield path, value
        for method, member in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if inspect.isfunction(function) and not method.startswith("_"):
                yield f"{path}.{method}", function


def test_the_page_shows_every_public_name():
    paths = re.findall(r"^::: structprune\.(?:\S+\.)?(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert sorted(paths) == sorted([*sp.__all__, "Budget"])  # which is for annotations: structprune.typing has it


def test_every_example_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", "recipes")
    session = {"sp": sp, "torch": torch, "nn": nn, "json": json, "Path": Path}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    without, failures = [], []
    for path, value in shown():
        test = parser.get_doctest(inspect.getdoc(value), session, path, None, None)
        if not test.examples:
            without.append(path)
        test.globs = session  # each goes on where the last one ended
        runner.run(test, out=failures.append, clear_globs=False)
    assert without == []
    assert failures == []
