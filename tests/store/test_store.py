"""Saving and loading without pickle and without tracing, in this process and in another."""

import functools
import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import StoreError
from tests.example_networks import Chain, pruned, randomise

X = torch.randn(2, 3, 10, 10)


class Attributes(nn.Module):
    """Holds every kind of attribute that can be described."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.act, self.gelu, self.part = F.relu, F.gelu, functools.partial(F.leaky_relu, negative_slope=0.1)
        self.table = {"a": (1, 2.5, None), 3: [True, {"x"}], "size": torch.Size([1, 2])}
        self.kind, self.place, self.window = torch.float32, torch.device("cpu"), slice(None, 3)
        self.first, self.limit, self.plain = self.conv, float("inf"), torch.ones(2)
        self.register_buffer("hidden", torch.arange(3.0), persistent=False)

    def forward(self, x):
        return self.head(self.part(self.gelu(self.act(self.conv(x))))) * self.plain.sum() + self.hidden.sum()


def _saved(model, folder):
    plan, slim = pruned(model, X[:1])
    sp.save(slim, plan, folder)
    return plan, slim


def test_load_gives_back_the_same_network(tmp_path):
    _, slim = _saved(randomise(Chain()), tmp_path)
    again = sp.load(tmp_path)
    assert type(again) is Chain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "slim.safetensors"]
    assert list(again.state_dict()) == list(slim.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), slim.state_dict().values(), strict=True))
    assert again.conv1.out_channels == slim.conv1.out_channels
    assert torch.equal(again(X), slim(X))
    assert again.train()(X).requires_grad


def test_every_kind_of_attribute_survives(tmp_path):
    _, slim = _saved(Attributes(), tmp_path)
    again = sp.load(tmp_path)
    assert torch.equal(again(X), slim(X))
    for name in ("act", "gelu", "table", "kind", "place", "window", "limit"):
        assert getattr(again, name) == getattr(slim, name), name
    assert again.first is again.conv
    assert again.part.keywords == {"negative_slope": 0.1}
    assert "hidden" not in again.state_dict()


def test_a_plan_reads_back_beside_its_architecture(tmp_path):
    plan, _ = _saved(randomise(Chain()), tmp_path)
    assert sp.Plan.from_json((tmp_path / "plan.json").read_text()) == plan


@pytest.mark.thorough
def test_load_in_another_process_without_pickle_and_tracing(tmp_path):
    import timm

    model = timm.create_model("mobilenetv3_small_050").eval()
    x = torch.randn(1, 3, 64, 64)
    plan, slim = pruned(model, x)
    sp.save(slim, plan, tmp_path)
    torch.save(x, tmp_path / "x.pt")
    code = f"""
import pickle, torch
x = torch.load({str(tmp_path / "x.pt")!r})
import structprune as sp, structprune.ops.forward_pass as capture
def forbidden(*a, **k): raise AssertionError("pickle or tracing")
pickle.load = pickle.loads = torch.load = capture.make_fx = forbidden
print(repr(sp.load({str(tmp_path)!r})(x).double().sum().item()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(slim(x).double().sum().item(), rel=1e-6)


@pytest.mark.thorough
def test_a_class_made_in_a_function_loads_in_this_process_only(tmp_path):
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.b(self.a(x))

    _, slim = _saved(Local(), tmp_path)
    assert torch.equal(sp.load(tmp_path)(X), slim(X))
    code = f"import structprune as sp\ntry: sp.load({str(tmp_path)!r})\nexcept sp.errors.StoreError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pass a dense instance, load(folder, model=...)" in done.stdout


def test_what_can_t_be_described_needs_a_dense_instance(tmp_path):
    class Lambda(Chain):
        def __init__(self):
            super().__init__()
            self.act = lambda x: x

    model = randomise(Lambda())
    _, slim = _saved(model, tmp_path)
    with pytest.raises(StoreError, match=r"act is .*lambda.* can't be imported by name.*load\(folder, model=\.\.\.\)"):
        sp.load(tmp_path)
    fresh = Lambda().eval()
    assert torch.equal(sp.load(tmp_path, model=fresh)(X), slim(X))
    assert fresh.conv1.out_channels == 8


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"holds no slim\.safetensors"):
        sp.load(tmp_path)
    _saved(randomise(Chain()), tmp_path)
    data = json.loads((tmp_path / "plan.json").read_text())

    def load_with(change):
        changed = json.loads(json.dumps(data))
        change(changed["architecture"])
        (tmp_path / "plan.json").write_text(json.dumps(changed))
        return sp.load(tmp_path)

    with pytest.raises(StoreError, match=r"not an nn\.Module"):
        load_with(lambda a: a.update({"class": "os:PathLike"}))
    with pytest.raises(StoreError, match="os:system is another name for what is defined elsewhere"):
        load_with(lambda a: a["attributes"].update(act={"$import": "os:system"}))
    with pytest.raises(StoreError, match="is neither one of the functions that saved networks may name"):
        load_with(lambda a: a["attributes"].update(act={"$import": "torch.hub:load"}))
    with pytest.raises(StoreError, match="has no tensor nowhere"):
        load_with(lambda a: a["modules"]["fc"]["parameters"]["weight"].update(key="nowhere"))
    (tmp_path / "slim.safetensors").write_bytes(b"damaged")
    with pytest.raises(StoreError, match="is damaged"):
        sp.load(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    from structprune.store import atomic_files

    atomic_files.write_text(tmp_path / "a.txt", "old")

    def fails(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_files.write(tmp_path / "a.txt", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_tensors_in_one_list_stay_apart_and_classes_of_one_name_too(tmp_path):
    def make(factor):
        class Local(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
                self.anchors = [torch.tensor(1.0), torch.tensor(2.0)]

            def forward(self, x):
                return self.b(self.a(x)) * factor * self.anchors[0] + self.anchors[1]

        return Local()

    _, one = _saved(make(1.0), tmp_path / "one")
    _, five = _saved(make(5.0), tmp_path / "five")
    assert torch.equal(sp.load(tmp_path / "one")(X), one(X))
    assert torch.equal(sp.load(tmp_path / "five")(X), five(X))


def test_a_crafted_plan_runs_nothing(tmp_path, monkeypatch):
    """Imports of stray modules, functions reached through modules, and attributes that hide methods are refused."""
    _saved(randomise(Chain()), tmp_path / "slim")
    data = json.loads((tmp_path / "slim" / "plan.json").read_text())
    (tmp_path / "slim" / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    call = {"$partial": [{"$import": "torch:os.system"}, {"$tuple": ["touch pwned"]}, {"$dict": []}]}
    for change, message in [
        (lambda a: a.update({"class": "slim.evil:Net"}), "is not defined here"),
        (lambda a: a["attributes"].update(act=call), "is not defined here"),
        (lambda a: a["attributes"].update(eval=1), "hides a method"),
        (lambda a: a["attributes"].update(modules=1), "hides a method"),
        (lambda a: a["attributes"].update(_modules=1), "hides a method"),
        (lambda a: a["attributes"].update(kind={"$dtype": "os"}), "os is not a dtype"),
        (lambda a: a["attributes"].update(kind={"$device": "nosuch"}), "can't be built"),
        (lambda a: a["attributes"].update(kind={"$record": ["torch.nn.modules.conv:Conv2d", [], None]}),
         "not a class of records"),
        (lambda a: a["attributes"].update(kind={"$import": "torch.serialization:load"}), "saved networks may name"),
    ]:  # fmt: skip
        changed = json.loads(json.dumps(data))
        change(changed["architecture"])
        (tmp_path / "slim" / "plan.json").write_text(json.dumps(changed))
        with pytest.raises(StoreError, match=message):
            sp.load(tmp_path / "slim")
    assert not (tmp_path / "pwned").exists()


def test_wrong_arguments(tmp_path):
    plan, slim = _saved(randomise(Chain()), tmp_path)
    with pytest.raises(StoreError, match="model is a str"):
        sp.load(tmp_path, "model")
    with pytest.raises(StoreError, match="is a file"):
        sp.save(slim, plan, tmp_path / "plan.json")
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match=r"plan\.json"):
        sp.load(tmp_path)
