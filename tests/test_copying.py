"""A copy has what belongs to a module, runs itself, and has nothing that a framework hung on the original."""

from __future__ import annotations

import functools
import types
import weakref

import pytest
import torch
from accelerate import Accelerator
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from torch.nn.utils import prune as masks
from torch.nn.utils import spectral_norm, weight_norm

import structprune as sp
from structprune.modules import skeleton_copy
from structprune.suites.equality import assert_slim_equals_masked

X = torch.randn(2, 3, 8, 8)


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()


def slim_of(model, channels=0.6):
    graph = sp.trace(model, X[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": channels}, align=1)
    return plan, sp.prune(model, plan)


@pytest.fixture(params=["no", "bf16"])
def accelerator(request):
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(mixed_precision=request.param, cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_slim_network_cut_from_a_prepared_one_is_prepared_itself(accelerator):
    model = network()
    plain, expected = slim_of(model), model(X)
    prepared = accelerator.prepare(model)
    assert prepared is model
    assert model._is_accelerate_prepared
    plan, slim = slim_of(model)
    assert not {"_is_accelerate_prepared", "_original_forward", "forward"} & set(vars(slim))
    assert torch.equal(slim(X), plain[1](X))  # in float32, not under the dense network's autocast
    torch.testing.assert_close(skeleton_copy(model)(X), expected, rtol=0, atol=0)
    assert sp.verify(model, slim, plan, X).passed
    if accelerator.mixed_precision == "no":
        PartialState._shared_state["device"] = accelerator.state.device = torch.device("meta")  # another, as a GPU is
        moved = accelerator.prepare(slim)
        assert {parameter.device.type for parameter in moved.parameters()} == {"meta"}
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    else:
        assert accelerator.prepare(slim).forward.__self__ is slim
        assert slim(X).dtype == torch.float32
        assert not torch.equal(slim(X), plain[1](X))


def test_hooks_that_move_tensors_stay_behind_with_their_forward():
    model = network()
    expected = model(X)
    for module in model.modules():
        add_hook_to_module(module, AlignDevicesHook("cpu", io_same_device=True))
    copy = skeleton_copy(model)
    for module in copy.modules():
        assert not {"_hf_hook", "_old_forward", "forward"} & set(vars(module))
    assert torch.equal(copy(X), expected)
    assert hasattr(model, "_hf_hook")


def test_a_compiled_call_stays_behind():
    model = network()
    calls = []
    model._compiled_call_impl = lambda x: calls.append(x) or x  # what model.compile() leaves
    copy = skeleton_copy(model)
    assert copy._compiled_call_impl is None
    assert copy(X).shape == (2, 2, 4, 4)
    assert not calls
    model = network()
    model.forward = torch.compile(model.forward, backend="eager")
    assert "forward" not in vars(skeleton_copy(model))
    before = model.forward = types.MethodType(lambda self, x: self[0](x), model)
    model.forward = torch.compile(model.forward, backend="eager")
    copy = skeleton_copy(model)
    assert copy.forward.__func__ is before.__func__
    assert copy.forward.__self__ is copy


class Foreign:
    """A hook of a framework's, by where its class is defined."""

    __module__ = "deepspeed.runtime.engine"

    def __init__(self):
        self.lock = torch._C.Generator()

    def __deepcopy__(self, memo):
        raise RuntimeError("it holds a process group")

    def __call__(self, *_):
        raise AssertionError("it belongs to the original")

    def method(self, *_):
        raise AssertionError("it belongs to the original")


def test_hooks_of_frameworks_stay_behind_and_all_others_come_along():
    model = network()
    hook = Foreign()
    own = model[0].register_forward_hook(lambda module, args, result: result * 2)
    for module in (model, model[0]):
        module.register_forward_hook(hook, always_call=True)
        module.register_forward_pre_hook(functools.partial(hook.method, 1), with_kwargs=True)
        module.register_full_backward_hook(hook)
        module.register_state_dict_pre_hook(hook)
    copy = skeleton_copy(model)
    assert list(copy[0]._forward_hooks) == [own.id]
    for held in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called"):
        assert not getattr(copy[0], held), held
    assert not copy._forward_hooks
    assert not copy._state_dict_pre_hooks
    assert len(model._forward_hooks) == 1
    plain = network()
    plain.load_state_dict(copy.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(copy(X), plain[1:](2 * plain[0](X)))


class Gain(nn.Module):
    """Reads a buffer of its own by a hook, a patched method, a partial, a list of functions and a weak reference."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
        self.gain = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.seen = []
        if how == "hook":
            self.conv.register_forward_hook(lambda module, args, result: result * self.gain)
        elif how == "partial":
            self.conv.register_forward_hook(functools.partial(scale, self))
        elif how == "closure":
            before, seen = self.conv.forward, self.seen

            def forward(x):
                seen.append(len(x))
                return before(x) * self.gain

            self.conv.forward = forward
        elif how == "method":
            self.conv.forward = types.MethodType(lambda conv, x: nn.Conv2d.forward(conv, x) * self.gain, self.conv)
        elif how == "list":
            self.functions = [lambda x: x * self.gain]
        elif how == "weak":
            self.conv.owner = weakref.ref(self)
            self.conv.register_forward_hook(lambda module, args, result: result * module.owner().gain)
        elif how == "default":
            self.conv.register_forward_hook(lambda module, args, result, owner=self: result * owner.gain)
        self.how = how

    def forward(self, x):
        x = self.conv(x)
        if self.how == "list":
            x = self.functions[0](x)
        return self.last(x.relu())


def scale(owner, module, args, result):
    return result * owner.gain


HOWS = ["hook", "partial", "closure", "method", "list", "weak", "default"]


@pytest.mark.parametrize("how", HOWS)
def test_functions_that_hold_the_network_run_the_copy(how):
    model = Gain(how).eval()
    with torch.no_grad():
        expected = model(X)
        copy = skeleton_copy(model)
        assert torch.equal(copy(X), expected)
        copy.gain = nn.Parameter(2 * copy.gain)  # of the copy alone
        twice = Gain("hook").eval()
        twice.load_state_dict(copy.state_dict())
        torch.testing.assert_close(copy(X), twice(X))
        assert torch.equal(model(X), expected)
    graph = assert_slim_equals_masked(Gain(how), X[:1])
    assert [group.units for group in graph.groups] == [8]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    "wrap", [weight_norm, spectral_norm, lambda layer: masks.l1_unstructured(layer, "weight", 0.3)]
)
@pytest.mark.filterwarnings("ignore")
def test_hooks_that_compute_a_weight_come_along_and_use_the_copy_s(wrap, trained):
    model = network()
    wrap(model[2])
    if trained:
        model.train()(X).sum().backward()
    model.eval()
    copy = skeleton_copy(model)
    with torch.no_grad():
        assert torch.equal(copy(X), model(X))
        for name, parameter in copy[2].named_parameters():
            if name != "bias":
                copy[2]._parameters[name] = nn.Parameter(torch.zeros_like(parameter) + 0.01)
        assert not torch.equal(copy(X), model(X))
    plan, slim = slim_of(model)
    gate = sp.verify(model, slim, plan, X)
    assert gate.masked_vs_slim.passed, gate.reasons()


class Told(nn.Module):
    """Says itself what its state is, as Lightning's modules do, and holds what can't be copied."""

    def __init__(self):
        super().__init__()
        self.net, self.trainer = network(), Foreign()
        self.net._is_accelerate_prepared = True
        self._is_accelerate_prepared = True

    def __getstate__(self):
        return {**vars(self), "trainer": None}

    def forward(self, x):
        return self.net(x)


def test_a_class_s_own_word_on_its_state_is_heard():
    model = Told().eval()
    copy = skeleton_copy(model)
    assert copy.trainer is None
    assert isinstance(model.trainer, Foreign)
    for module in (copy, copy.net):
        assert "_is_accelerate_prepared" not in vars(module)
    assert torch.equal(copy(X), model(X))
    assert all(a is b for a, b in zip(copy.parameters(), model.parameters(), strict=True))


def test_an_object_of_a_framework_is_shared_as_it_holds_locks():
    model = network()
    model.group = Foreign()
    assert skeleton_copy(model).group is model.group


class Parent(nn.Module):
    """Children that refer to each other, and to their parent, by plain attributes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.a.__dict__["sibling"], self.b.__dict__["parent"] = self.b, self
        self.aside = [nn.Linear(2, 2)]
        self.aside[0]._is_accelerate_prepared = True


def test_modules_are_copied_alike_when_something_has_been_compiled(monkeypatch):
    """torch.compile puts its own `__init__` and `__setstate__` around those of all modules, for good."""
    for name in ("__init__", "__setstate__"):
        monkeypatch.setattr(nn.Module, name, getattr(nn.Module, name))
    monkeypatch.setattr(nn.Module, "___needs_generation_tag_patch", True, raising=False)
    torch._dynamo.mutation_guard.install_generation_tagging_init()
    assert nn.Module.__setstate__.__module__ == "torch._dynamo.mutation_guard"

    class Scaled(nn.Module):  # whose manner of copying was not asked for before
        def __init__(self):
            super().__init__()
            self.gain, self.functions = nn.Parameter(torch.ones(1)), [lambda x: x * self.gain]

        def forward(self, x):
            return self.functions[0](x)

    copy = skeleton_copy(Scaled())
    copy.gain = nn.Parameter(torch.tensor([2.0]))
    assert torch.equal(copy(X), 2 * X)


def test_references_between_modules_lead_to_the_copies():
    model = Parent()
    copy = skeleton_copy(model)
    assert copy.a.sibling is copy.b
    assert copy.b.parent is copy
    assert copy.aside[0] is not model.aside[0]
    assert "_is_accelerate_prepared" not in vars(copy.aside[0])


def test_a_graph_module_with_children_of_children_is_copied():
    graph = sp.trace(nn.Sequential(network(), nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1))), X[:1], form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.8}, align=1)
    slim = sp.prune(graph.model, plan)
    slim._is_accelerate_prepared = True
    outer = nn.Sequential(slim)
    copy = skeleton_copy(outer)
    assert torch.equal(copy(X), outer(X))
    assert "_is_accelerate_prepared" not in vars(copy[0])
    assert copy[0].get_parameter("0.0.weight") is slim.get_parameter("0.0.weight")
