"""A plan and its weights name each other: files of two runs, damaged ones and edited plans are refused, with the dense
network and without; savers and readers of one folder never meet half of a network."""

import json
import os
import shutil
import stat
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import structprune as sp
from structprune.errors import PlanError, StoreError, StructPruneError
from structprune.store import atomic_files
from tests.example_networks import Chain, randomise

X = torch.randn(2, 3, 10, 10)
FORMS = pytest.mark.parametrize("form", ["module", "graph"])
DENSE = pytest.mark.parametrize("dense", [False, True], ids=["alone", "model"])


def _saved(folder, form="module", budget=0.5, seed=0, model=None):
    torch.manual_seed(seed)
    model = model or randomise(Chain())
    graph = sp.trace(model, X[:1], form=form)
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": budget}, align=1)
    slim = sp.prune(model, plan).eval()
    sp.save(slim, plan, folder)
    return model, plan, slim


def _edit(folder, change):
    data = json.loads((folder / "plan.json").read_text())
    change(data)
    (folder / "plan.json").write_text(json.dumps(data))


@FORMS
@DENSE
@pytest.mark.parametrize("budget", [0.3, 0.5], ids=["other widths", "same widths"])
def test_weights_of_another_run_are_refused(tmp_path, form, dense, budget):
    model, plan, _ = _saved(tmp_path / "a", form)
    _, other, _ = _saved(tmp_path / "b", form, budget, seed=1)
    assert (plan.widths == other.widths) == (budget == 0.5)
    shutil.copy(tmp_path / "b" / "slim.safetensors", tmp_path / "a")
    with pytest.raises(StoreError, match=r"is not of the same run as plan\.json"):
        sp.load(tmp_path / "a", *([model] if dense else []))


@FORMS
@DENSE
def test_a_plan_of_another_run_is_refused_though_it_names_these_weights(tmp_path, form, dense):
    model, _, _ = _saved(tmp_path / "a", form)
    _saved(tmp_path / "b", form, seed=1)
    named = json.loads((tmp_path / "a" / "plan.json").read_text())["weights"]
    shutil.copy(tmp_path / "b" / "plan.json", tmp_path / "a")
    _edit(tmp_path / "a", lambda d: d.update(weights=named))
    with pytest.raises(StoreError, match=r"is not the plan that .* was saved with"):
        sp.load(tmp_path / "a", *([model] if dense else []))


@FORMS
@DENSE
def test_a_damaged_byte_is_found_wherever_it_is(tmp_path, form, dense):
    model, _, _ = _saved(tmp_path, form)
    path = tmp_path / "slim.safetensors"
    whole = path.read_bytes()
    for place in (0, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreError, match="is damaged"):
            sp.load(tmp_path, *([model] if dense else []))
    for short in (b"", whole[:7], whole[:-1], whole + b"0"):
        path.write_bytes(short)
        with pytest.raises(StoreError, match="is damaged"):
            sp.load(tmp_path, *([model] if dense else []))


@DENSE
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["keep"]["conv1.weight"].update({"0": [0]}), "is not the plan that"),
        (lambda d: d["groups"]["conv1"].update(kept=[0]), "is not the plan that"),
        (lambda d: d["attributes"]["conv1"].update(out_channels=1), "is not the plan that"),
        (lambda d: d["notes"].append("mine"), None),
        (lambda d: d.pop("weights"), "does not name it by its hash"),
        (lambda d: d["weights"].pop("sha256"), r"weights\.sha256: Field required"),
        (lambda d: d["weights"].update(sha256="0" * 64), "its hash is not the one"),
        (lambda d: d["weights"].update(bytes=1.5), r"weights\.bytes: "),
        (lambda d: d.update(schema="structprune.plan/1"), None),
        (lambda d: d.update(weights=None, schema="structprune.plan/1"), "is not the plan that"),
        (lambda d: d.update(schema="structprune.plan/7"), "this version reads"),
    ],
)
def test_edits_of_a_saved_plan(tmp_path, dense, change, message):
    model, _, slim = _saved(tmp_path)
    _edit(tmp_path, change)
    if message is None:
        assert torch.equal(sp.load(tmp_path, *([model] if dense else []))(X), slim(X))
        return
    with pytest.raises(StoreError, match=message):
        sp.load(tmp_path, *([model] if dense else []))


def test_a_folder_of_the_version_before_loads_with_a_warning(tmp_path):
    _, _, slim = _saved(tmp_path)
    save_file(load_file(tmp_path / "slim.safetensors"), tmp_path / "slim.safetensors")
    _edit(tmp_path, lambda d: d.update(schema="structprune.plan/1") or d.pop("weights"))
    with pytest.warns(UserWarning, match="kept no hash of the weights"):
        assert torch.equal(sp.load(tmp_path)(X), slim(X))
    _, other, _ = _saved(tmp_path / "b", budget=0.3)
    save_file(load_file(tmp_path / "b" / "slim.safetensors"), tmp_path / "slim.safetensors")
    assert other
    with pytest.warns(UserWarning, match="kept no hash"), pytest.raises(StoreError, match="and the plan makes it"):
        sp.load(tmp_path)


def test_a_plan_without_weights_is_no_saved_network(tmp_path):
    """As a run leaves it that stopped after its plan, in the folder of another."""
    model, plan, _ = _saved(tmp_path)
    (tmp_path / "plan.json").write_text(plan.to_json())
    for given in ([], [model]):
        with pytest.raises(StoreError, match="does not name it by its hash"):
            sp.load(tmp_path, *given)


def test_the_description_agrees_with_the_plan(tmp_path):
    _saved(tmp_path)
    _edit(tmp_path, lambda d: d["architecture"]["modules"]["conv1"]["attributes"].update(out_channels=99))
    with pytest.raises(StoreError, match=r"conv1\.out_channels is 99 in the architecture"):
        sp.load(tmp_path)


def test_save_refuses_a_network_that_is_not_the_plan_s(tmp_path):
    model, plan, slim = _saved(tmp_path / "a")
    _, other, _ = _saved(tmp_path / "b", budget=0.3)
    for net, wrong, message in [
        (slim, other, "and the plan makes it"),
        (model, plan, "and the plan makes it"),
        (nn.Sequential(nn.Linear(2, 2)), plan, "is absent in the network"),
        ("slim", plan, "slim is a str"),
        (slim, {}, "plan is a dict"),
    ]:
        with pytest.raises(StoreError, match=message):
            sp.save(net, wrong, tmp_path / "c")
    plan.keep["conv1.weight"]["0"] = [0.0]
    with pytest.raises(PlanError, match="integer"):
        sp.save(slim, plan, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("folder", [None, 5, b"folder", "a\0b", "x" * 5000])
def test_folders_that_are_none(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, plan, slim = _saved(tmp_path / "a")
    with pytest.raises(StoreError):
        sp.load(folder)
    with pytest.raises(StoreError):
        sp.save(slim, plan, folder)


def test_a_dense_model_that_does_not_fit(tmp_path):
    _saved(tmp_path)
    with pytest.raises(StoreError, match=r"can't be applied to model: the plan slices"):
        sp.load(tmp_path, nn.Sequential(nn.Conv2d(3, 8, 1)))


def test_two_savers_and_a_reader_in_one_folder(tmp_path):
    """Of two networks, each load gives one or the other whole, and each save leaves one whole."""
    one, two = _saved(tmp_path / "1"), _saved(tmp_path / "2", budget=0.3, seed=1)
    outputs = {tuple(x[2](X).flatten().tolist()) for x in (one, two)}
    folder, errors, done = tmp_path / "both", [], threading.Event()
    sp.save(one[2], one[1], folder)

    def save(which):
        for _ in range(15):
            try:
                sp.save(which[2], which[1], folder)
            except Exception as error:
                errors.append(error)

    def read():
        while not done.is_set():
            try:
                assert tuple(sp.load(folder)(X).flatten().tolist()) in outputs
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=save, args=(which,)) for which in (one, two)]
    reader = threading.Thread(target=read)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert not errors
    assert tuple(sp.load(folder)(X).flatten().tolist()) in outputs
    assert sorted(os.listdir(folder)) == ["plan.json", "slim.safetensors"]


def test_a_saver_waits_for_the_lock_and_says_so(tmp_path, monkeypatch):
    _, plan, slim = _saved(tmp_path / "a")
    monkeypatch.setattr(atomic_files, "PATIENCE", 0.1)
    with (
        atomic_files.locked(tmp_path / "b"),
        pytest.raises(StoreError, match="another process has been saving into it"),
    ):
        sp.save(slim, plan, tmp_path / "b")
    assert os.listdir(tmp_path / "b") == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs permissions that bind")
def test_a_folder_that_can_t_be_written(tmp_path):
    _, plan, slim = _saved(tmp_path / "a")
    (tmp_path / "b").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="can't be written"):
        sp.save(slim, plan, tmp_path / "b")


def test_a_save_that_fails_leaves_the_network_that_was_there(tmp_path, monkeypatch):
    _, plan, slim = _saved(tmp_path)
    _, other, net = _saved(tmp_path / "other", budget=0.3)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files, "flush", full)
    with pytest.raises(StoreError, match="No space left"):
        sp.save(net, other, tmp_path)
    monkeypatch.undo()
    assert torch.equal(sp.load(tmp_path)(X), slim(X))
    assert plan
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["plan.json", "slim.safetensors"]


def test_files_have_the_modes_of_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        _saved(tmp_path / "a")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o640}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "nested deeper than"),
        (b'{"a":' * 100_000, "nested deeper than"),
        (b"[]" * 3, "Extra data"),
        (b"", "Expecting value"),
        (b"\xff\xfe", "can't decode|codec"),
        (b'"' + b"a" * 100, "Unterminated"),
        (b"null", "not a plan: None"),
    ],
)
def test_plans_that_are_no_plans(tmp_path, text, message):
    _saved(tmp_path)
    (tmp_path / "plan.json").write_bytes(text)
    with pytest.raises(StoreError, match=message):
        sp.load(tmp_path)


def test_a_plan_that_is_too_large_is_not_read(tmp_path):
    _saved(tmp_path)
    with (tmp_path / "plan.json").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file of a terabyte
    with pytest.raises(StoreError, match="over the limit"):
        sp.load(tmp_path)


def test_tensors_that_no_file_holds(tmp_path):
    class Sparse(Chain):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.eye(3).to_sparse())

    model = randomise(Sparse())
    with pytest.raises(StructPruneError, match="table can't be saved: it is sparse"):
        _saved(tmp_path, model=model)
