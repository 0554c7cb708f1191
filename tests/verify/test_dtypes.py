"""Half precision, float64, mixed dtypes, complex numbers and integers: what is right passes, what is wrong does not."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.verify import Comparison, batches_of, compare_finest, masked
from structprune.verify.running import Inputs, dtype_of
from tests.example_networks import pruned

X = torch.randn(2, 3, 12, 12)


def net(norm=nn.BatchNorm2d):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), norm(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 5)).eval()


class Mixed(nn.Module):
    """A body in half precision, a head in float32."""

    def __init__(self, dtype):
        super().__init__()
        self.body, self.head = net()[:-1].to(dtype), nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x):
        return self.head(self.body(x.to(self.body[0].weight.dtype)).float())


class Choices(nn.Module):
    def __init__(self, what):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.what = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1), what

    def forward(self, x):
        y = self.b(self.a(x).relu())
        return torch.fft.rfft2(y) if self.what == "complex" else (y.argmax(1), y > 0)


NETWORKS = {
    "float16": lambda: (net().half(), X.half()),
    "bfloat16": lambda: (net().bfloat16(), X.bfloat16()),
    "float64": lambda: (net().double(), X.double()),
    "float16 body": lambda: (Mixed(torch.float16).eval(), X),
    "bfloat16 body": lambda: (Mixed(torch.bfloat16).eval(), X),
    "float16 GroupNorm": lambda: (net(lambda width: nn.GroupNorm(4, width)).half(), X.half()),
    "complex": lambda: (Choices("complex").eval(), X),
    "integers": lambda: (Choices("integers").eval(), X),
    "integers in float16": lambda: (Choices("integers").half().eval(), X.half()),
}


def compared(model, slim, plan, x):
    own, exact = Comparison.of(dtype_of(model, Inputs.of(x))), Comparison.of(torch.float64)
    batches = batches_of(model, Inputs.of(x))
    compare_finest(own, masked(model, plan), slim, batches, order=lambda native: [native])
    compare_finest(exact, masked(model, plan), slim, batches)
    return own, exact


@pytest.mark.parametrize("name", NETWORKS)
def test_right_networks_are_equal_in_their_own_dtype_and_in_float64(name):
    model, x = NETWORKS[name]()
    plan, slim = pruned(model, x[:1])
    own, exact = compared(model, slim, plan, x)
    assert own.passed, own
    assert exact.passed, exact
    assert exact.max_rel < 1e-12
    assert exact.detail == ""
    assert own.batches == exact.batches == [1, 2]


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_networks_are_caught_in_any_dtype(name):
    model, x = NETWORKS[name]()
    plan, _ = pruned(model, x[:1])
    axes = next(axes for axes in plan.keep.values() if "1" in axes)
    lost = next(i for i in itertools.count() if i not in axes["1"])
    axes["1"] = sorted([*axes["1"][1:], lost])
    _, exact = compared(model, sp.prune(model, plan), plan, x)
    assert exact.failed


def test_a_float16_network_passes_the_gate():
    model, x = NETWORKS["float16"]()
    plan, slim = pruned(model, x[:1])
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert gate.not_compared() == []
    assert gate.onnx.tolerance == gate.masked_vs_slim.tolerance == 4 * torch.finfo(torch.float16).eps
    with torch.no_grad():
        slim[7].weight[0] *= 1.5
    assert any(reason.startswith("float64") for reason in sp.verify(model, slim, plan, x).reasons())


@pytest.mark.parametrize("name", ["bfloat16", "float64", "bfloat16 body"])
def test_without_a_kernel_a_float32_copy_is_compared_and_that_is_said(name):
    model, x = NETWORKS[name]()
    plan, slim = pruned(model, x[:1])
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert gate.onnx.state == "not compared"
    (said,) = gate.not_compared()
    assert said.startswith("onnx: not compared: onnxruntime runs no such network in ")
    assert "a float32 copy equals its file to " in said
    assert gate.record().to_data()["onnx"]["passed"] is False


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_onnx_has_no_complex_numbers():
    model, x = NETWORKS["complex"]()
    plan, slim = pruned(model, x[:1])
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert "ONNX has no complex numbers" in gate.onnx.detail
    assert gate.training.passed


def test_code_that_converts_and_makes_tensors_runs_in_float64():
    class Converts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)
            self.kernel = torch.ones(16, 1, 3, 3) / 9  # no buffer

        def forward(self, x):
            y = self.a(x).half().float().relu()
            y = nn.functional.conv2d(y, self.kernel[: y.shape[1]], groups=y.shape[1]) + torch.ones(1)
            return self.b(y)

    model = Converts().eval()
    plan, _ = pruned(model, X[:1], 1.0)  # a kernel of constants keeps its channels
    _, exact = compared(model, sp.prune(model, plan), plan, X)
    assert exact.passed
    assert exact.detail == ""
    assert exact.max_rel < 1e-12


def test_a_network_that_runs_in_half_precision_only_is_said_to_be_compared_in_it():
    class Only(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x):
            if x.dtype != torch.float16:
                raise TypeError("float16, please")
            return self.b(self.a(x).relu())

    model, x = Only().half().eval(), X.half()
    plan, slim = pruned(model, x[:1])
    _, exact = compared(model, slim, plan, x)
    assert exact.passed
    assert exact.detail == "compared in float16: the dense network does not run in float64"
    assert exact.tolerance == 4 * torch.finfo(torch.float16).eps


@pytest.mark.parametrize("large", [1e3, 1e4])
def test_a_network_that_rounds_coarsely_on_its_way_is_judged_by_how_coarsely(large):
    """Digits that a large number takes away are moved by no eps of a weight: float64 tells a right cut from a wrong."""

    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.a, self.b = nn.Linear(64, 600), nn.Linear(600, 1000)

        def forward(self, x):
            return (self.b(torch.sigmoid(self.a(x))) + large) - large

    torch.manual_seed(0)
    model, x = Coarse().eval(), torch.randn(32, 64)
    plan, slim = pruned(model, x[:1], 0.6)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    with torch.no_grad():
        slim.b.weight[0, 0] += 1e-4  # less than a step of float32 beside the large number
    wrong = sp.verify(model, slim, plan, x)
    assert wrong.float64.failed
    assert not wrong.passed


class Padded(nn.Module):
    """Its last channel is lost in float32, and nothing but rounding."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        y = self.b(self.a(x).relu())
        y = y if x.dtype == torch.float64 else y * self.factor
        return torch.cat([y, y[:, :1] * 1e-9 + 1e4 - 1e4], 1)


def test_where_a_network_rounds_coarsely_excuses_nothing_elsewhere():
    model = Padded().eval()
    plan, slim = pruned(model, X[:1])
    assert sp.verify(model, slim, plan, X).passed
    slim.factor = 1.5
    gate = sp.verify(model, slim, plan, X)
    assert gate.float64.passed
    assert gate.masked_vs_slim.failed


class Normalises(nn.Module):
    """Makes tensors of numbers in its code, of the default dtype or of one that it names."""

    def __init__(self, dtype):
        super().__init__()
        self.net, self.options = net(), {} if dtype in (None, "array") else {"dtype": dtype}
        self.numbers = [0.485, 0.456, 0.406] if dtype != "array" else np.array([0.485, 0.456, 0.406])

    def forward(self, x):
        mean = torch.tensor(self.numbers, **self.options)[:, None, None]
        return self.net((x - mean).to(x.dtype) / 0.226)


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64, torch.float16, "array"])
def test_numbers_in_the_code_are_in_both_networks_as_they_are_outside_of_the_gate(form, dtype):
    model = Normalises(dtype).eval()
    graph = sp.trace(model, X, form=form)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, align=1)
    gate = sp.verify(model, sp.prune(model, plan), plan, X)
    assert gate.passed, str(gate)
    assert max(gate.float64.max_rel, gate.random_weights.max_rel) < 1e-12
