"""docs/how.md as it stands: its networks become files, its commands and its Python run, what they print is compared."""

import contextlib
import dataclasses
import io
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from structprune.cli import app
from structprune.graph import Group

PAGE = Path(__file__).parents[2] / "docs" / "how.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def run_blocks(blocks):
    """What each block that is followed by a text block prints, and that text."""
    names, shown = {}, []
    for (kind, code), (after, text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "python" and (file := re.match(r"# (\w+\.py)\n", code)):
            Path(file.group(1)).write_text(code)
        elif kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, names)
            output = printed.getvalue()
        elif kind == "sh":
            program, *arguments = shlex.split(code)
            assert program == "structprune"
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, result.output
            output = result.stdout
        if kind != "text" and after == "text":
            shown.append((output, text))
    return shown


def plain(text):
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if os.path.dirname(getattr(sys.modules[name], "__file__", None) or "") == str(tmp_path):
            del sys.modules[name]


def test_every_block_prints_what_the_page_shows(place):
    shown = run_blocks(BLOCKS)
    assert len(shown) == sum(kind == "text" for kind, _ in BLOCKS) >= 9
    for printed, text in shown:
        assert plain(printed) == plain(text)


def test_the_pictures_of_the_pages_are_there():
    for page in PAGE.parent.glob("*.md"):
        for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / picture).is_file(), f"{page.name}: {picture}"


def test_the_glossary_names_what_is_there():
    names = re.findall(r"`Group\.(\w+)`", (PAGE.parent / "glossary.md").read_text())
    assert len(names) > 8
    known = {*vars(Group), *(field.name for field in dataclasses.fields(Group))}
    assert set(names) <= known
