"""A store is freed of what no interrupted run needs, and of nothing while a run is at work."""

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from structprune.cli import app
from structprune.errors import StoreError
from structprune.store.artefacts import Artefacts, Key
from structprune.store.cleaning import at_work, clean


def artefact(root: Path, stage: str) -> Path:
    key = Key(stage, {}, {}, {})
    return Artefacts(root).make(key, lambda folder: (folder / "weights").write_bytes(bytes(1000))).folder


def run(place: Path, name: str, used: list[Path], finished: bool) -> Path:
    folder = place / name
    folder.mkdir()
    (folder / "recipe.yaml").write_text("seed: 0")
    lines = [json.dumps({"event": "made", "artefact": path.name}) for path in used]
    (folder / "log.jsonl").write_text("\n".join(["{ of a run that was killed", "3", *lines]))
    if finished:
        (folder / "report.json").write_text("{}")
    return folder


@pytest.fixture
def place(tmp_path):
    """Of a finished run, of an interrupted one, of neither; and what an interrupted stage left."""
    root = tmp_path / ".structprune"
    done, half, other = (artefact(root, name) for name in ("done", "half", "other"))
    folder = run(tmp_path, "a", [done, other], finished=True)
    shutil.copyfile(done / "weights", folder / "weights")
    run(tmp_path, "b", [half], finished=False)
    (root / "train-1.part").mkdir()
    return tmp_path


def names(place: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (place / ".structprune").iterdir() if path.name[0] != "."}


def test_nothing_goes_unasked_and_then_all_but_what_is_needed(place):
    told = clean(place / ".structprune", [place], remove=False)
    assert {entry.path.name.partition("-")[0]: entry.needed_by for entry in told} == {
        **{"done": None, "other": None, "half": place / "b", "train": place / "b"}
    }
    freed = {entry.path.name.partition("-")[0]: entry.freed for entry in told}
    assert 1000 < freed["other"] < 2000  # the weights and what the artefact is
    assert names(place) == {"done", "half", "other", "train"}
    assert clean(place / ".structprune", [place], remove=True) == told
    assert names(place) == {"half", "train"}
    assert (place / "a" / "weights").stat().st_size == 1000
    (place / "b" / "report.json").write_text("{}")
    clean(place / ".structprune", [place], remove=True)
    assert names(place) == set()


def test_nothing_goes_while_a_run_is_at_work(place):
    root = place / ".structprune"
    with at_work(root), at_work(root), pytest.raises(StoreError, match="a run is at work with"):
        clean(root, [place], remove=True)
    assert names(place) == {"done", "half", "other", "train"}
    (root / ".at-work-1-aa.lock").touch()  # of a run that was killed
    clean(root, [place], remove=True)
    assert not list(root.glob(".*"))


def test_a_run_that_makes_nothing_leaves_no_store(tmp_path):
    with at_work(tmp_path / "store"):
        assert (tmp_path / "store").is_dir()
    assert not (tmp_path / "store").exists()


def test_the_command_lists_and_removes(place):
    done = CliRunner().invoke(app, ["clean", str(place)])
    assert done.exit_code == 0
    assert f"kept, {place / 'b'} goes on from it" in done.output
    assert "can be freed by --yes" in done.output
    assert "done" in names(place)
    done = CliRunner().invoke(app, ["clean", str(place), "--yes"])
    assert "removed" in done.output
    assert names(place) == {"half", "train"}
    done = CliRunner().invoke(app, ["clean", str(place / "nowhere")])
    assert done.exit_code == 2
    assert "there is no store at" in " ".join(done.stderr.split())


def test_locks_of_killed_runs_go_when_a_run_enters_and_held_ones_stay(tmp_path):
    (tmp_path / "plan-1.lock").touch()
    with FileLock(tmp_path / "train-2.lock"), at_work(tmp_path):
        assert {path.name for path in tmp_path.glob("*.lock") if path.name[0] != "."} == {"train-2.lock"}
