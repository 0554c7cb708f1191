"""Each block of Python in README and docs/ runs as it stands, in the order of its page."""

import re
import sys
from pathlib import Path

import pytest
import torch

import structprune as sp
from tests.image_folders import write_digits
from tests.models.files import LAYERS, NET

from .blocks import ROOT, blocks_of

RUN = ["docs/python.md", "docs/own_data.md", "docs/own_model.md"]
ELSEWHERE = {
    "docs/how.md": "test_how.py also compares what it prints",
    "docs/deploying.md": "tests/export/test_formats.py has the files that it reads",
    "CONTRIBUTING.md": "the tests that its table names import its files from it",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    return tmp_path


def test_every_page_with_python_is_run_by_a_test():
    pages = [path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]
    assert {page for page in pages if blocks_of(page)} == {*RUN, *ELSEWHERE}
    for page in pages:  # a block that the pattern misses would never run
        assert len(re.findall(r"^\s*```py", (ROOT / page).read_text(), re.MULTILINE)) == len(blocks_of(page)), page


def test_python(folder):
    names = {}
    for block in blocks_of("docs/python.md"):
        if not block.slow:
            block.run(names)
    assert names["gate"].passed
    assert set(names["scores"].values) == {group.name for group in sp.trace(names["model"], names["x"]).groups}
    assert (folder / "slim" / "slim.safetensors").is_file()


@pytest.mark.slow
def test_python_with_its_timings(folder, monkeypatch, capsys):
    monkeypatch.delenv("STRUCTPRUNE_TIMING")
    names = {}
    for block in blocks_of("docs/python.md"):
        block.run(names)
    assert names["fast"].latency["rounds"]
    assert "slim: " in capsys.readouterr().out


def test_own_data(folder):
    names = {}
    for block in blocks_of("docs/own_data.md"):
        block.run(names)
    task, x = names["Signs"](), torch.randn(4, 3)
    assert task.loss(x, x) == 0
    meter = task.metrics()[0].make()
    meter.update(x, x)
    assert meter.compute() == 1


@pytest.mark.slow
def test_own_model(folder, monkeypatch, capsys):
    monkeypatch.syspath_prepend(folder)
    source = LAYERS + NET.replace("from {layers} import Block", "").replace("num_classes=10", "num_classes=3")
    Path("net.py").write_text(source)
    names = {}
    exec(source, names)
    torch.save(names["Net"]().state_dict(), "net.pth")
    write_digits(folder / "photos", each=40)
    for block in blocks_of("docs/own_model.md"):
        block.run(names)
    assert set(names["report"]["quality"]) >= {"dense", "final"}
    assert isinstance(names["slim"], torch.nn.Module)
