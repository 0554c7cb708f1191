"""Networks that rounding makes jump, as at steps and choices between equal numbers: noise hides no wrong cut there."""

import copy

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.verify import Comparison
from structprune.verify.onnx_file import compare_onnx
from structprune.verify.running import Inputs
from tests.example_networks import pruned


class Rounds(nn.Module):
    """Quantises its input, which lies on the steps."""

    def __init__(self):
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        return self.b(self.act(self.a(torch.round(x))))


class Picks(nn.Module):
    """The best half of its tokens, which are all alike."""

    def __init__(self):
        super().__init__()
        self.rank, self.place = nn.Linear(6, 1), nn.Parameter(torch.randn(1, 12, 6))
        self.a, self.act, self.b = nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5)

    def forward(self, x):
        best = self.rank(x)[..., 0].topk(6, dim=1).indices
        x = (x + self.place).gather(1, best[..., None].expand(-1, -1, 6))
        return self.b(self.act(self.a(x)))


NETWORKS = {
    "steps": lambda: (Rounds(), torch.randint(0, 8, (2, 3, 8, 8)).float() + 0.5),
    "choices": lambda: (Picks(), torch.randn(2, 1, 6).expand(2, 12, 6).contiguous()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wrong_network_does_not_hide_behind_its_jumps(name):
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    plan, slim = pruned(model.eval(), x[:1])
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    wrong = copy.deepcopy(slim)
    wrong.act = nn.Sigmoid()
    found = sp.verify(model, wrong, plan, x)
    assert not found.passed
    assert any(reason.startswith("float64: not compared") and "proves nothing" in reason for reason in found.reasons())


def test_noise_excuses_no_more_than_a_share_where_something_is_to_be_proven():
    a = torch.randn(2, 8, dtype=torch.float64)
    noise = torch.full_like(a, 0.1)
    for proves, state in ((True, "not compared"), (False, "passed")):
        comparison = Comparison.of(torch.float64, proves=proves)
        comparison.add([a], [2 * a], 2, lambda: [noise])
        assert comparison.state == state
    comparison = Comparison.of(torch.float64, proves=True)
    comparison.add([a], [a + 1e6], 2, lambda: [noise])  # more than noise
    assert comparison.failed
    nothing = torch.full_like(a, 1e-16)  # zero but for rounding, beside an output that is not
    comparison = Comparison.of(torch.float64, proves=True)
    comparison.add([a, nothing], [a, 3 * nothing], 2, lambda: [noise, nothing])
    assert comparison.passed


def test_choices_that_rounding_makes_are_few_where_something_is_to_be_proven():
    a, close = torch.arange(10), torch.ones(10, dtype=torch.float64)
    comparison = Comparison.of(torch.float64, proves=True)
    comparison.add([a], [a.flip(0)], 1, lambda: [close])
    assert comparison.state == "not compared"
    assert "proves nothing" in comparison.detail


def test_what_a_runtime_chooses_otherwise_is_not_compared():
    torch.manual_seed(0)
    model, x = NETWORKS["choices"]()
    _, slim = pruned(model.eval(), x[:1])
    comparison = Comparison.of(torch.float32)
    compare_onnx(comparison, model, slim, [Inputs.of(x)], None)
    assert comparison.state == "not compared" or comparison.max_rel < 1e-2
    assert comparison.max_rel > 1e-2 or comparison.passed


class Two(nn.Module):
    """Two outputs, of which float32 makes the first with few digits: a variance by E[x²] - E[x]²."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True)
        x, deviation = x - mean, (x.square().mean((2, 3), keepdim=True) - mean.square()).clamp_min(1e-12).sqrt()
        return self.b(self.a(x / deviation).relu()), self.b(self.a(x).relu())


def test_what_the_dense_network_shows_in_one_output_excuses_no_other(tmp_path):
    torch.manual_seed(1)
    model, x = Two().eval(), 0.9 + 1e-2 * torch.randn(2, 1, 64, 64)
    _, slim = pruned(model, x[:1])
    file = sp.export_onnx(slim, x, tmp_path / "slim.onnx")

    def compared(network):
        comparison = Comparison.of(torch.float32)
        compare_onnx(comparison, model, network, [Inputs.of(x)], file)
        return comparison

    right = compared(slim)
    assert right.passed
    assert right.dense is not None  # the first output was over its tolerance
    allowed, found = right.worst["output 0"], right.worst["output 1"]
    assert found < 1e-4 < allowed

    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.slim = slim

        def forward(self, x):
            first, second = self.slim(x)
            return first, second * (1 + 2 * allowed)

    wrong = compared(Wrong())
    assert wrong.max_rel < 4 * wrong.dense
    assert wrong.failed
