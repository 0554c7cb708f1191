"""A short run of tools/fuzz_readers.py: changed files give what is read, or an error of our own."""

import json
import os
from collections import Counter

import pytest

from structprune.suites.readers import chunks
from structprune.suites.readers.reading import KINDS, WATCH, Readers

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
        assert WATCH[0].events


def test_a_process_that_dies_is_counted_and_the_next_goes_on_behind_it(monkeypatch, tmp_path):
    """A child that reads one file of three and dies on the second; what a results file says of both."""
    child = tmp_path / "child.py"
    child.write_text("""
import json, os, sys
task = json.loads(sys.argv[1])
state = {"counts": {}, "slowest": 0.5, "base_mib": 1, "peak_mib": 2}
for number in range(task["start"], task["end"]):
    if number == 1:
        print("no room", file=sys.stderr)
        os._exit(9)
    state["counts"] = {"plan": {"read": state["counts"].get("plan", {}).get("read", 0) + 1}}
    state["next"] = number + 1
    open(os.path.join(task["folder"], "status.json"), "w").write(json.dumps(state))
""")
    monkeypatch.setattr(chunks, "CHILD", "child")
    monkeypatch.setattr(chunks, "HOME", tmp_path)
    done = chunks.count_outcomes(seed=0, memory=64, start=0, count=3)
    assert done["counts"] == {"plan": {"read": 2}, "?": {"died": 1}}
    assert done["failures"] == [{"number": 1, "kind": "?", "outcome": "died", "detail": "exit code 9 no room"}]
    whole = chunks.report(0, {"0": done})
    assert (whole["files"], whole["wrong"], whole["slowest"]) == (3, 1, 0.5)
    assert json.loads(json.dumps(whole))["chunks"]["0"] == done
    assert chunks.lines(whole) == [
        "?                {'died': 1}",
        "plan             {'read': 2}",
        "3 files, 1 wrong; the slowest took 0.50 s, the largest process grew to 2 MiB from 1",
        "  died: ? --seed 0 --only 1: exit code 9 no room",
    ]


def test_chunks_that_the_results_file_holds_are_not_read_again(monkeypatch, tmp_path):
    starts = []

    def counted(seed, memory, start, count):
        starts.append((start, count))
        counts = {"plan": {"read": count}}
        return {"counts": counts, "failures": [], "slowest": 0.1, "base_mib": 1, "peak_mib": 2}

    monkeypatch.setattr(chunks, "CHUNK", 10)
    monkeypatch.setattr(chunks, "count_outcomes", counted)
    path = tmp_path / "readers.json"
    chunks.read_all(10, 0, 64, 1, path)
    assert chunks.read_all(25, 0, 64, 1, path)["files"] == 25
    assert starts == [(0, 10), (10, 10), (20, 5)]
    assert chunks.read_all(5, 1, 64, 1, path)["files"] == 5, "another seed starts anew"
