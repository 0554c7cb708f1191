"""Networks from outside, pruned and saved: they load without the dense network, in a process that only imports the
code that defines them."""

import json
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import StoreError
from structprune.store import architecture
from tests.store import outside_kinds
from tests.store.outside_kinds import NETWORKS, Config, Recurrent, Two, X

FRESH = """
import sys, torch
import structprune as sp
from tests.store import outside_kinds
made = {}
for name, folder in zip(*[iter(sys.argv[2:])] * 2):
    net = sp.load(folder)
    with torch.no_grad():
        made[name] = net(outside_kinds.X)
torch.save(made, sys.argv[1])
"""


def pruned(net, x, **budget):
    graph = sp.trace(net, x)
    plan = sp.plan(graph, sp.score(graph, "l1"), budget=budget, align=1)
    return plan, sp.prune(net, plan)


@pytest.fixture(scope="module")
def slims():
    made = {}
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        plan, slim = pruned(make().eval(), X[:1], params=0.8)
        assert sum(p.numel() for p in slim.parameters()) < plan.params["dense"]
        made[name] = plan, slim
    return made


@pytest.fixture(scope="module")
def elsewhere(slims, tmp_path_factory):
    """What each network gives in another process."""
    folder = tmp_path_factory.mktemp("kinds")
    words = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, (name, (plan, slim)) in enumerate(slims.items()):
            words += [name, str(sp.save(slim, plan, folder / str(number)))]
    subprocess.run([sys.executable, "-c", FRESH, str(folder / "made.pt"), *words], check=True)
    return torch.load(folder / "made.pt")


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETWORKS)
def test_it_loads_in_another_process(slims, elsewhere, name):
    with torch.no_grad():
        expected = slims[name][1](X)
    assert torch.equal(elsewhere[name], expected)


def _again(net):
    description, weights = architecture.describe(net)
    return architecture.build(json.loads(json.dumps(description)), {k: t.clone() for k, t in weights.items()})


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_modes_and_gradients_are_as_they_were(slims, name):
    slim = slims[name][1]
    again = _again(slim)
    assert list(again.state_dict()) == list(slim.state_dict())
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in slim.parameters()]
    assert again.training is slim.training
    torch.manual_seed(1)
    again.train()(X).square().sum().backward()
    torch.manual_seed(1)
    slim.train()(X).square().sum().backward()
    slim.eval()
    for (key, p), q in zip(slim.named_parameters(), again.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), key
        assert p.grad is None or torch.allclose(p.grad, q.grad, atol=1e-5), key
        p.grad = None


def test_every_attribute_comes_back(slims):
    slim = slims["everything"][1]
    again = _again(slim)
    for key, value in vars(slim).items():
        if key in vars(nn.Module()) or key in ("mean", "slots", "gain", "norm_layer", "nothing", "counter"):
            continue
        assert type(getattr(again, key)) is type(value), key
        assert getattr(again, key) == value, key
    assert again.mean.tolist() == [0.5, 1.5]
    assert (again.slots.low, again.slots.high, hasattr(again.slots, "unset")) == (1, [2], False)
    assert again.counter == slim.counter
    assert again.norm_layer.func is nn.LayerNorm
    assert again.nothing[1] is None
    assert "gain" not in vars(again)  # worked out again


def test_what_is_one_object_stays_one(slims):
    again = _again(slims["shared config"][1])
    assert type(again.config) is Config
    assert again.config is again.a.config is again.config.itself
    assert again.config.inner.activation == "relu"
    assert list(again._internal_dict.items()) == [("act", "relu"), ("p", (0.5, None))]
    memory = _again(slims["shared memory"][1])
    assert memory.write.memory is memory.read.memory


@pytest.mark.parametrize("name", ["lstm", "lstm in both directions", "gru", "rnn"])
def test_a_recurrent_layer_is_whole(slims, name):
    slim, again = slims[name][1], _again(slims[name][1])
    assert again.r.hidden_size == slim.r.hidden_size
    assert all(a is b for a, b in zip(again.r._flat_weights, again.r._parameters.values(), strict=True))
    assert all(ref() is weight for ref, weight in zip(again.r._flat_weight_refs, again.r._flat_weights, strict=True))
    assert again.double()(X.double()).dtype == torch.float64


def test_a_pruned_lstm_has_the_hidden_size_of_its_weights(tmp_path):
    torch.manual_seed(0)
    net = Recurrent(num_layers=2).eval()
    plan, slim = pruned(net, X[:1], params=0.4)
    assert slim.r.hidden_size < 6
    again = sp.load(sp.save(slim, plan, tmp_path))
    assert again.r.hidden_size == slim.r.hidden_size == again.r.weight_hh_l0.shape[1]
    assert torch.equal(again(X), slim(X))


def made_inside():
    def local(x):
        return x

    return local


REFUSED = {
    "lambda": (lambda net: setattr(net, "fn", lambda x: x), "fn is .*lambda"),
    "nested": (lambda net: setattr(net, "fn", made_inside()), "fn is .*local"),
    "own function": (lambda net: setattr(net, "fn", outside_kinds.double_output), "fn: .*double_output is neither"),
    "text bound": (
        lambda net: setattr(net, "fn", outside_kinds.functools.partial(outside_kinds.swish, beta="x")),
        "fn",
    ),
    "file": (lambda net: setattr(net, "fn", sys.stdout), "fn is a "),
    "module": (lambda net: setattr(net, "fn", F), "fn is a builtins.module"),
    "hook": (lambda net: net.a.register_forward_hook(lambda *args: None), "a has hooks .*of an unknown kind"),
    "backward hook": (lambda net: net.a.register_full_backward_hook(made_inside()), "a has hooks"),
    "method": (lambda net: setattr(net, "eval", 1), "hides a method"),
    "forward": (lambda net: setattr(net, "forward", made_inside()), "hides a method"),
    "exception": (lambda net: setattr(net, "fn", ValueError("x")), "fn is a builtins.ValueError"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_t_be_described_is_said_when_it_is_saved(tmp_path, kind):
    change, reason = REFUSED[kind]
    plan, slim = pruned(Two().eval(), X[:1], params=0.7)
    before = slim(X)
    change(slim)
    with pytest.warns(UserWarning, match=rf"{reason}.*load\(folder, model=\.\.\.\)"):
        sp.save(slim, plan, tmp_path)
    with pytest.raises(StoreError, match=reason):
        sp.load(tmp_path)
    assert torch.equal(sp.load(tmp_path, Two().eval())(X), before)


def test_timm_feature_extractors(tmp_path):
    import timm

    x = torch.randn(1, 3, 32, 32)
    for number, options in enumerate([{}, {"feature_cls": "hook"}, {"out_indices": (1, 3)}]):
        torch.manual_seed(0)
        net = timm.create_model("resnet10t", features_only=True, **options).eval()
        plan, slim = pruned(net, x, macs=0.5)
        again = sp.load(sp.save(slim, plan, tmp_path / str(number)))
        assert all(torch.equal(a, b) for a, b in zip(again(x), slim(x), strict=True))
        assert again.feature_info.channels() == slim.feature_info.channels()
