"""Slim against its ONNX file: what the dense network shows too is the runtime's, but a wrong file is not."""

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.verify import Comparison
from structprune.verify.onnx_file import compare_onnx
from structprune.verify.running import Inputs, batches_of
from tests.example_networks import pruned

X = torch.randn(3, 8)


def body(entering):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(entering, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1)).eval()


class Normed(nn.Module):
    """Normalises its input, in a way that a runtime does with less precision on a smooth bright image."""

    def __init__(self, norm, entering=1):
        super().__init__()
        self.norm, self.body = norm, body(entering)

    def forward(self, x):
        return self.body(self.norm(x))


class Standard(nn.Module):
    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True)
        return (x - mean) / x.std((2, 3), keepdim=True)


class Squares(nn.Module):
    """A variance by E[x²] - E[x]²."""

    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True)
        return (x - mean) / (x.square().mean((2, 3), keepdim=True) - mean.square()).clamp_min(1e-12).sqrt()


def smooth(channels, spread, level=0.9):
    torch.manual_seed(1)
    return level + spread * torch.randn(2, channels, 64, 64)


NETWORKS = {
    "InstanceNorm": lambda: (Normed(nn.InstanceNorm2d(1)), smooth(1, 1e-3)),
    "GroupNorm": lambda: (Normed(nn.GroupNorm(1, 3), 3), smooth(3, 1e-3, 5.0)),
    "LayerNorm": lambda: (Normed(nn.LayerNorm([3, 64, 64], elementwise_affine=False), 3), smooth(3, 1e-3, 5.0)),
    "std": lambda: (Normed(Standard()), smooth(1, 1e-4)),
    "squares": lambda: (Normed(Squares()), smooth(1, 1e-2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_runtime_does_to_the_dense_network_too_is_said_and_passed(name):
    model, x = NETWORKS[name]()
    plan, slim = pruned(model.eval(), x[:1], 0.5)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    if gate.onnx.max_rel > gate.onnx.tolerance:
        assert gate.onnx.dense is not None
        assert gate.onnx.max_rel <= 4 * gate.onnx.dense
        assert "and its own file" in gate.onnx.detail


def compared(model, slim, x, file):
    comparison = Comparison.of(torch.float32)
    compare_onnx(comparison, model, slim, batches_of(model, Inputs.of(x)), file)
    return comparison


def test_a_wrong_file_is_caught_where_the_runtime_is_imprecise(tmp_path):
    model, x = NETWORKS["InstanceNorm"]()
    _, slim = pruned(model.eval(), x[:1], 0.5)
    file = sp.export_onnx(slim, x, tmp_path / "slim.onnx")
    assert compared(model, slim, x, file).passed
    with torch.no_grad():
        slim.body[2].weight[1] *= 1.002
    found = compared(model, slim, x, file)
    assert found.failed
    assert "between the dense network and its own file" in found.detail


def test_a_file_that_is_wrong_for_dense_and_slim_alike_fails(tmp_path, monkeypatch):
    module = __import__("structprune.verify.onnx_file", fromlist=["export_onnx"])
    model, x = Normed(nn.Identity(), 3), torch.randn(2, 3, 16, 16)
    _, slim = pruned(model.eval(), x[:1], 0.5)
    right = module.export_onnx

    def wrong(network, inputs, path):
        other = __import__("copy").deepcopy(network)
        with torch.no_grad():
            other.body[2].bias += 0.5
        return right(other, inputs, path)

    monkeypatch.setattr(module, "export_onnx", wrong)
    found = compared(model, slim, x, None)
    assert found.failed
    assert "computes something else, in the dense network too" in found.detail


class Cancels(nn.Module):
    """Loses its last digits in half precision, which onnxruntime, computing in float32 between, does not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return (self.b(self.a(x).relu()) + 5) - 5


@pytest.mark.parametrize("seed", [0, 33, 36, 43])  # with fewer samples of rounding, the last three were refused
def test_rounding_in_half_precision_is_measured_and_a_float32_copy_says_the_rest(seed, tmp_path):
    torch.manual_seed(seed)
    x = torch.randn(3, 8).half()
    model = Cancels().half().eval()
    plan, slim = pruned(model, x[:1], 0.5)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    if gate.onnx.max_rel > gate.onnx.tolerance:
        assert "rounding in float16" in gate.onnx.detail or "its own file" in gate.onnx.detail
    file = sp.export_onnx(slim, x, tmp_path / "slim.onnx")
    with torch.no_grad():
        slim.b.bias += 0.5
    comparison = Comparison.of(torch.float16)
    compare_onnx(comparison, model, slim, batches_of(model, Inputs.of(x)), file)
    assert comparison.failed


class BySize(nn.Module):
    """Code that fixes the batch size when it is exported."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.b(self.a(x).relu().view(int(x.shape[0]), 2, -1))


TOKENS = torch.randn(3, 2, 8)


def test_a_batch_that_the_dense_networks_file_refuses_too_is_said():
    model = BySize().eval()
    _, slim = pruned(model, TOKENS[:1], 0.5)
    found = compared(model, slim, TOKENS, None)
    assert found.passed, found
    assert found.batches == [1]
    assert "takes no batch of 3, nor does the dense network's" in found.detail
    (said,) = found.left_out
    assert said in found.detail


def test_a_batch_that_only_slims_file_refuses_fails(tmp_path):
    class Any(BySize):
        def forward(self, x):
            return self.b(self.a(x).relu())

    model, fixed = Any().eval(), BySize().eval()
    _, slim = pruned(model, TOKENS[:1], 0.5)
    fixed.a, fixed.b = slim.a, slim.b
    found = compared(model, slim, TOKENS, sp.export_onnx(fixed, TOKENS[:1], tmp_path / "fixed.onnx"))
    assert found.failed
    assert found.detail.startswith("at batch 3: ")


class Draws(nn.Module):
    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.how = nn.Linear(8, 16), nn.Linear(16, 4), how

    def forward(self, x):
        y = self.a(x).relu()
        if self.how == "channels":  # as many numbers as there are channels
            return self.b(y + torch.randn_like(y))
        if self.how == "dropout":
            return self.b(torch.dropout(y, 0.5, True))
        z = self.b(y)
        return z + (torch.rand(()) if self.how == "output" else torch.randint(0, 2, z.shape))


@pytest.mark.parametrize("how", ["channels", "dropout"])
def test_a_network_that_draws_numbers_is_named_as_random(how):
    model = Draws(how).eval()
    plan, slim = pruned(model, X[:1], 0.5)
    gate = sp.verify(model, slim, plan, X)
    assert not gate.passed
    assert gate.masked_vs_slim.state == "not compared"
    assert all("draws random numbers in evaluation mode" in reason and "twice" in reason for reason in gate.reasons())


@pytest.mark.parametrize("how", ["output", "integers"])
def test_a_network_that_draws_the_same_numbers_is_compared_from_one_seed(how):
    model = Draws(how).eval()
    plan, slim = pruned(model, X[:1], 0.5)
    state = torch.get_rng_state()
    gate = sp.verify(model, slim, plan, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert gate.passed, gate.reasons()
    assert "from the same seed: the network draws random numbers" in gate.float64.detail
    slim.b.weight.data[0] *= 1.01
    assert not sp.verify(model, slim, plan, X).passed


def test_a_network_that_is_the_same_twice_is_not_named():
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 4)).eval()
    plan, slim = pruned(model, X[:1], 0.5)
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed
    assert not any(comparison.detail for comparison in gate.comparisons().values())


class Unsure(nn.Module):
    """Scores of which all but one are next to nothing: onnxruntime's sigmoid has them to 1e-7 of one, and no better."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1)
        self.register_buffer("offset", torch.tensor([2.0] + [-14.0] * 7))

    def forward(self, x):
        return (self.two(self.one(x).relu()).mean((2, 3)) + self.offset).sigmoid()


def test_scores_that_are_next_to_nothing_are_compared_beside_the_largest():
    torch.manual_seed(0)
    model, x = Unsure().eval(), torch.randn(4, 3, 8, 8)
    plan, slim = pruned(model, x)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert "last digits beside the largest values of the output, as in the dense network" in gate.onnx.detail
    slim.offset[3] += 0.5  # no matter of digits: not in the dense network, nor so small
    assert not sp.verify(model, slim, plan, x).passed


class Mixed(Unsure):
    """Such scores between a column of 1e9 and an ordinary one."""

    factor = 1.0

    def forward(self, x):
        y = self.two(self.one(x).relu()).mean((2, 3))
        return torch.cat([x.mean((2, 3)) * 1e9, (y + self.offset).sigmoid(), y * self.factor], 1)


def test_lost_digits_excuse_no_other_column(tmp_path):
    torch.manual_seed(0)
    model, x = Mixed().eval(), torch.randn(4, 3, 8, 8)
    _, slim = pruned(model, x)
    file = sp.export_onnx(slim, x, tmp_path / "slim.onnx")
    right = compared(model, slim, x, file)
    assert right.passed
    assert "last digits" in right.detail
    slim.factor = 1.5
    assert compared(model, slim, x, file).failed
    slim.factor = 1.0
    slim.offset[3] += 2  # of what is next to nothing
    assert compared(model, slim, x, file).failed
