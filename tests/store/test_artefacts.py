"""What stages made is found by what it was made from, whole or not at all, by one maker at a time."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from structprune.errors import StoreError
from structprune.store.artefacts import Artefacts, Key

KEY = Key("train", {"epochs": 2}, {"model": "abc"}, {"torch": "2.13"})


def write(folder: Path) -> None:
    (folder / "a.txt").write_text("made")


def test_it_is_found_by_all_that_it_was_made_from(tmp_path):
    store = Artefacts(tmp_path / "store")
    assert store.find(KEY) is None
    assert not (tmp_path / "store").exists()
    made = store.make(KEY, write)
    assert store.find(KEY) == made
    assert (made.folder / "a.txt").read_text() == "made"
    for other in (
        replace(KEY, stage="finetune"),
        replace(KEY, spec={"epochs": 3}),
        replace(KEY, inputs={"model": "abd"}),
        replace(KEY, versions={"torch": "2.14"}),
    ):
        assert store.find(other) is None


def test_its_digest_is_that_of_its_contents(tmp_path):
    one, two = Artefacts(tmp_path / "one"), Artefacts(tmp_path / "two")
    other = one.make(replace(KEY, spec=1), write)
    assert one.make(KEY, write).digest == two.make(KEY, write).digest == other.digest
    changed = one.make(replace(KEY, spec=2), lambda folder: (folder / "a.txt").write_text("else"))
    assert changed.digest != other.digest


def test_what_is_damaged_is_made_anew(tmp_path):
    store = Artefacts(tmp_path)
    folder = store.make(KEY, write).folder
    for damage in (
        lambda: (folder / "a.txt").write_text("mad"),
        lambda: (folder / "a.txt").unlink(),
        lambda: (folder / "artefact.json").write_text("{"),
        lambda: (folder / "artefact.json").write_text(json.dumps({"files": 3})),
        lambda: (folder / "artefact.json").unlink(),
    ):
        damage()
        assert store.find(KEY) is None
        assert (store.make(KEY, write).folder / "a.txt").read_text() == "made"
        assert store.find(KEY) is not None


def test_an_interrupted_maker_leaves_what_it_had_and_no_artefact(tmp_path):
    store = Artefacts(tmp_path)

    def stop(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make(KEY, stop)
    assert store.find(KEY) is None
    seen = []

    def go_on(folder: Path) -> None:
        seen.append((folder / "half.txt").read_text())
        (folder / "half.txt").unlink()
        write(folder)

    assert sorted(path.name for path in store.make(KEY, go_on).folder.iterdir()) == ["a.txt", "artefact.json"]
    assert seen == ["half"]
    assert len(list(tmp_path.iterdir())) == 1  # no lock stays


def test_a_second_maker_waits_and_takes_the_firsts(tmp_path):
    store, entered, release = Artefacts(tmp_path), threading.Event(), threading.Event()
    made, waited = [], []

    def slow(folder: Path) -> None:
        made.append(1)
        entered.set()
        assert release.wait(20)
        write(folder)

    def second() -> None:
        store.make(KEY, slow, lambda: (waited.append(1), release.set()))

    first, other = threading.Thread(target=store.make, args=(KEY, slow)), threading.Thread(target=second)
    first.start()
    assert entered.wait(20)
    other.start()
    first.join(20)
    other.join(20)
    assert (made, waited) == ([1], [1])


@pytest.mark.thorough
def test_processes_that_make_the_same_at_once_all_end_with_it(tmp_path):
    code = """
import os, sys
from pathlib import Path
from structprune.store.artefacts import Artefacts, Key

children = []
for _ in range(3):  # of a process that has imported all, so that they are at it in the same moment
    children.append(os.fork())
    if not children[-1]:
        key = Key("train", {"epochs": 2}, {"model": "abc"}, {"torch": "2.13"})
        made = Artefacts(Path(sys.argv[1])).make(key, lambda folder: (folder / "a.txt").write_text("made"))
        os._exit(0 if (made.folder / "a.txt").read_text() == "made" else 1)
print([os.waitpid(child, 0)[1] for child in children])
"""
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=100)
    assert ended.stdout.strip() == "[0, 0, 0]"
    assert Artefacts(tmp_path).find(KEY) is not None


def test_a_store_that_can_t_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="where what runs make is kept, can't be written"):
        Artefacts(tmp_path / "file" / "store").make(KEY, write)
