"""A short run of tools/fuzz_readers.py: changed files give what is read, or an error of our own."""

import os
from collections import Counter

import pytest

from tests.reader_checks import KINDS, WATCH, Readers

FILES = 400


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    folder, here = tmp_path_factory.mktemp("readers"), os.getcwd()
    made = Readers(folder)
    os.chdir(made.place)
    yield made
    os.chdir(here)


def test_changed_files(readers):
    results = {number: readers.read(number) for number in range(FILES)}
    wrong = {number: result for number, result in results.items() if result.outcome not in ("read", "refused", "slow")}
    assert wrong == {}
    kinds = Counter((result.kind, result.outcome) for result in results.values())
    assert all(kinds[kind, "refused"] for kind in KINDS), "the files reach every reader"
    assert all(kinds[kind, "read"] for kind in KINDS), "some changes mean nothing"


def test_the_same_number_is_the_same_file(readers):
    assert [readers.read(n).detail for n in range(20)] == [readers.read(n).detail for n in range(20)]


def test_what_readers_must_not_do_is_seen(readers, tmp_path):
    """The checks themselves: a reader that writes, starts a process or unpickles would be caught."""
    import pickle
    import subprocess
    import sys

    for step in (
        lambda: (tmp_path / "a.txt").write_text("a"),
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda: pickle.loads(pickle.dumps(Counter())),
    ):
        with WATCH[0].on():
            step()
        assert WATCH[0].seen
