"""The gate passes what is right, and catches surgery that is broken on purpose."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.verify import expanded, masked
from tests.toys import Chain, pruned, randomise

X = torch.randn(4, 3, 10, 10)


class Branch(nn.Module):
    """A residual branch whose last BatchNorm starts at zero, as timm's do: its filters have no effect yet."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.bn, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.bn(self.b(F.relu(self.a(x)))))


def test_right_surgery_passes_with_small_differences():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed
    assert gate.reasons() == []
    assert gate.masked_vs_slim.max_rel < 1e-5
    assert gate.float64.max_rel < 1e-13
    assert gate.reload.max_abs == 0
    assert gate.onnx.max_rel < 1e-5
    assert gate.masked_vs_slim.batches == gate.onnx.batches == [1, 4]
    assert gate.to_dict()["passed"] is True


def test_one_sample_is_also_run_as_two():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    assert sp.verify(model, slim, plan, X[:1]).masked_vs_slim.batches == [1, 2]


def test_the_masked_reference_equals_zeroing_by_hand():
    model = randomise(Chain())
    plan, _ = pruned(model, X[:1])
    first, second = (plan.groups[name]["kept"] for name in ("conv1", "conv2"))
    with torch.no_grad():
        y = F.relu(model.bn1(model.conv1(X)))
        y[:, [i for i in range(8) if i not in first]] = 0  # where they enter conv2
        y = model.conv2(y)
        y[:, [i for i in range(6) if i not in second]] = 0  # where they enter fc
        by_hand = model.fc(y.mean((2, 3)))
        torch.testing.assert_close(masked(model, plan)(X), by_hand)


def _swap_filters(slim):
    slim.conv1.weight.data = slim.conv1.weight.data.flip(0)


def _wrong_inputs(slim):
    slim.conv2.weight.data = slim.conv2.weight.data.roll(1, 1)


def _forget_bias(slim):
    slim.conv2.bias.data[0] += 0.01


def _stale_statistics(slim):
    slim.bn1.running_mean.roll(1, 0)
    slim.bn1.running_mean = slim.bn1.running_mean.roll(1, 0)


def _too_narrow(slim):
    slim.fc.weight.data = slim.fc.weight.data[:, :-1]


@pytest.mark.parametrize("harm", [_swap_filters, _wrong_inputs, _forget_bias, _stale_statistics, _too_narrow])
def test_broken_surgery_is_caught(harm):
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    harm(slim)
    gate = sp.verify(model, slim, plan, X)
    assert not gate.passed
    assert any(reason.startswith("masked_vs_slim") for reason in gate.reasons())


@pytest.mark.parametrize(("key", "dim"), [("conv1.weight", 0), ("conv2.weight", 1), ("bn1.bias", 0), ("fc.weight", 1)])
def test_a_plan_that_keeps_the_wrong_index_is_caught(key, dim):
    model = randomise(Chain())
    plan, _ = pruned(model, X[:1])
    kept = plan.keep[key][str(dim)]
    lost = next(i for i in itertools.count() if i not in kept)
    plan.keep[key][str(dim)] = sorted([*kept[1:], lost])
    gate = sp.verify(model, sp.prune(model, plan), plan, X)
    assert not gate.passed


def test_random_weights_catch_what_a_dead_branch_hides():
    model = Branch().eval()
    plan, _ = pruned(model, X[:1])
    kept = plan.keep["b.weight"]["1"]
    lost = next(i for i in itertools.count() if i not in kept)
    plan.keep["b.weight"]["1"] = sorted([*kept[1:], lost])
    gate = sp.verify(model, sp.prune(model, plan), plan, X)
    assert gate.masked_vs_slim.passed
    assert gate.float64.passed
    assert not gate.random_weights.passed
    assert not gate.passed


def test_a_damaged_file_is_caught(tmp_path):
    from safetensors.torch import load_file, save_file

    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    sp.save(slim, plan, tmp_path)
    weights = load_file(tmp_path / "slim.safetensors")
    weights["fc.bias"][0] += 1e-3
    save_file(weights, tmp_path / "slim.safetensors")
    gate = sp.verify(model, slim, plan, X, folder=tmp_path)
    assert gate.masked_vs_slim.passed
    assert gate.reasons() == ["reload: fc.bias is not the tensor that was saved"]


def test_an_onnx_file_of_another_network_is_caught(tmp_path):
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    sp.export_onnx(model, X, tmp_path / "dense.onnx")
    gate = sp.verify(model, slim, plan, X, onnx=tmp_path / "dense.onnx")
    assert [reason.partition(":")[0] for reason in gate.reasons()] == ["onnx"]


def test_a_slim_network_that_was_trained_equals_its_expansion():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    with torch.no_grad():
        for tensor in slim.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.1)
    assert not sp.verify(model, slim, plan, X).passed
    gate = sp.verify(expanded(model, slim, plan), slim, plan, X)
    assert gate.passed, gate.reasons()


def test_expansion_is_zero_where_channels_went():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    whole = expanded(model, slim, plan)
    gone = np.delete(np.arange(8), plan.groups["conv1"]["kept"])
    assert not whole.conv1.weight[gone].any()
    assert not whole.conv2.weight[:, gone].any()
    torch.testing.assert_close(whole(X), masked(model, plan)(X))


def test_outputs_that_are_not_finite_do_not_pass():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    for network in (model, slim):
        network.fc.bias.data[0] = torch.inf
    gate = sp.verify(model, slim, plan, X)
    assert not gate.passed
    assert "not finite" in gate.reasons()[0]
