"""Recovery against masked networks, SciPy and statistics taken in one pass."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import RecipeError
from structprune.verify import expanded
from tests.example_networks import Chain, pruned, randomise

DATA = torch.randn(40, 3, 10, 10, generator=torch.Generator().manual_seed(3))


class Block(nn.Module):
    """An inverted residual with BatchNorms, a grouped consumer, a concatenation and a linear head."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.expand, self.bn1 = nn.Conv2d(12, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.bn2 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.project, self.bn3 = nn.Conv2d(24, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.grouped, self.wide = nn.Conv2d(12, 8, 3, groups=2), nn.Conv2d(12, 8, 3)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.bn0(self.stem(x)))
        y = F.relu(self.bn2(self.depthwise(F.relu(self.bn1(self.expand(x))))))
        x = x + self.bn3(self.project(y))
        x = torch.cat([F.relu(self.grouped(x)), F.relu(self.wide(x))], 1)
        return self.fc(x.mean((2, 3)))


def error(model, slim, x=None):
    x = torch.randn(32, 3, 10, 10, generator=torch.Generator().manual_seed(11)) if x is None else x
    with torch.no_grad():
        return float((slim(x) - model(x)).square().mean() / model(x).var())


def compensated(model, plan, means, x):
    """A Chain whose removed channels carry their means into conv2, computed by hand."""
    with torch.no_grad():
        y = F.relu(model.bn1(model.conv1(x)))
        kept = plan.keep["conv2.weight"]["1"]
        gone = [c for c in range(8) if c not in kept]
        y[:, gone] = means[gone].float()[:, None, None]
        rows = plan.keep["conv2.weight"].get("0", range(6))
        z = torch.zeros_like(model.conv2(y))
        z[:, list(rows)] = model.conv2(y)[:, list(rows)]
        pooled = z.mean((2, 3))
        lost = [c for c in range(6) if c not in rows]
        with_mean = F.relu(model.bn1(model.conv1(DATA)))
        pooled[:, lost] = model.conv2(with_mean).mean((0, 2, 3))[lost]
        return model.fc(pooled)


def test_means_are_exact_for_a_1x1_consumer():
    model = randomise(Chain())
    plan, slim = pruned(model, DATA[:1])
    assert "1" in plan.keep["conv2.weight"]
    with torch.no_grad():
        means = F.relu(model.bn1(model.conv1(DATA))).mean((0, 2, 3))
    done = sp.recover(model, slim, plan, DATA, ["means"])
    x = torch.randn(5, 3, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(done.model(x), compensated(model, plan, means, x), rtol=1e-4, atol=1e-5)
    assert not any("approximate" in note for note in done.notes)


def test_means_from_batchnorm_need_no_images_and_say_where_they_can_not():
    model = randomise(Chain())
    plan, slim = pruned(model, DATA[:1], macs=0.6)
    told = sp.recover(model, slim, plan, DATA[:1], [{"method": "means", "source": "batchnorm"}])
    gamma, beta = model.bn1.weight.abs(), model.bn1.bias
    z = torch.randn(100_000, 8) * gamma + beta
    gone = [c for c in range(8) if c not in plan.keep["conv2.weight"]["1"]]
    rows = plan.keep["conv2.weight"].get("0", list(range(6)))
    shift = model.conv2.weight[rows][:, gone, 0, 0] @ z.relu().mean(0)[gone]
    torch.testing.assert_close(told.model.conv2.bias, slim.conv2.bias + shift, rtol=0, atol=0.02)
    if "fc.weight" in plan.keep:
        assert any("fc does not read channels straight from BatchNorms" in note for note in told.notes)


def test_means_at_padded_borders_are_said_to_be_approximate_and_fold_into_a_batchnorm():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
    ).eval()
    plan, slim = pruned(model, DATA[:1], ignore=["2"])
    done = sp.recover(model, slim, plan, DATA, ["means"])
    assert any("approximate at the zero-padded borders of 1 of 1" in note for note in done.notes)
    assert not torch.equal(done.model[3].running_mean, slim[3].running_mean)
    assert error(model, done.model, DATA) < error(model, slim, DATA)
    bare = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)).eval()
    plan, slim = pruned(bare, DATA[:1])
    assert any("2 has no bias and no BatchNorm" in note for note in sp.recover(bare, slim, plan, DATA, ["means"]).notes)


def test_full_least_squares_is_scipy_s():
    """On maps of 4×4, of which all places are taken, with a vanishing ridge: lstsq with an intercept."""
    model, data = randomise(Chain()), DATA[:, :, :4, :4]
    plan, slim = pruned(model, data[:1], ignore=["conv2"])
    done = sp.recover(model, slim, plan, data, [{"method": "least_squares", "ridge": 1e-9}])
    kept = plan.keep["conv2.weight"]["1"]
    with torch.no_grad():
        y = F.relu(model.bn1(model.conv1(data)))
        x = y[:, kept].permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
        target = model.conv2(y).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    solution, *_ = scipy.linalg.lstsq(np.c_[x, np.ones(len(x))], target)
    made = done.model.conv2
    np.testing.assert_allclose(made.weight.detach()[:, :, 0, 0], solution[:-1].T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(made.bias.detach(), solution[-1], rtol=1e-3, atol=1e-4)


def test_scales_multiply_whole_input_channels():
    model = randomise(Chain())
    plan, slim = pruned(model, DATA[:1], ignore=["conv2"])
    done = sp.recover(model, slim, plan, DATA, [{"method": "least_squares", "weights": "scales"}])
    ratio = (done.model.conv2.weight / slim.conv2.weight).detach()[:, :, 0, 0]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=1e-4)
    assert float((ratio - 1).abs().max()) > 1e-3
    assert error(model, done.model) < error(model, slim)


@pytest.mark.parametrize(
    "steps", [["means"], ["least_squares"], ["batchnorm"], ["means", "least_squares", "batchnorm"]]
)
def test_the_gate_holds_after_recovery(steps):
    model = randomise(Block())
    plan, slim = pruned(model, DATA[:1], macs=0.5)
    before = {key: tensor.clone() for key, tensor in slim.state_dict().items()}
    done = sp.recover(model, slim, plan, DATA, steps)
    assert all(torch.equal(before[key], tensor) for key, tensor in slim.state_dict().items())
    assert done.layers
    assert min(done.layers) > 0
    gate = sp.verify(expanded(model, done.model, plan), done.model, plan, DATA[:3])
    assert gate.passed, gate.reasons()


def test_least_squares_wins_back_most_of_a_block():
    """Grouped, strided and linear consumers, after a depthwise chain, a residual sum and a concatenation."""
    model = randomise(Block())
    plan, slim = pruned(model, DATA[:1], macs=0.6)
    cut, mended = error(model, slim), error(model, sp.recover(model, slim, plan, DATA, ["least_squares"]).model)
    assert mended < 0.35 * cut, (cut, mended)
    again = sp.recover(model, slim, plan, DATA, ["least_squares"]).model
    assert error(model, again) == mended


def test_batchnorm_statistics_are_those_of_one_pass_over_the_whole_set():
    model = randomise(Block())
    plan, slim = pruned(model, DATA[:1])
    done = sp.recover(model, slim, plan, DATA, ["batchnorm"]).model
    reference = sp.prune(model, plan)
    for name in ("bn0", "bn1", "bn2", "bn3"):
        norm, seen = reference.get_submodule(name), []
        with torch.no_grad():
            handle = norm.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            reference(DATA)
            handle.remove()
            norm.running_mean.copy_(seen[0].double().mean((0, 2, 3)))
            norm.running_var.copy_(seen[0].double().var((0, 2, 3)))
        torch.testing.assert_close(done.get_submodule(name).running_mean, norm.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(done.get_submodule(name).running_var, norm.running_var, rtol=1e-4, atol=1e-5)


def test_least_squares_after_batchnorm_fits_what_the_batchnorms_make():
    model = randomise(Block())
    plan, slim = pruned(model, DATA[:1], macs=0.6)
    first = sp.recover(model, slim, plan, DATA, ["least_squares"]).model
    after = sp.recover(model, slim, plan, DATA, ["batchnorm", "least_squares"]).model
    assert error(model, after) < 2 * error(model, first) + 0.01


def test_too_few_samples_are_said_and_regularised():
    model = randomise(Block())
    plan, slim = pruned(model, DATA[:1])
    few = DATA[:2]
    done = sp.recover(model, slim, plan, few, ["least_squares"])
    assert any("fewer than two rows for each unknown" in note for note in done.notes)
    assert np.isfinite(error(model, done.model))
    assert error(model, done.model) < 2 * error(model, slim)
    tiny = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    tiny = nn.Sequential(*tiny, nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 2)).eval()
    plan, slim = pruned(tiny, DATA[:1])
    notes = sp.recover(tiny, slim, plan, few, ["batchnorm"]).notes
    assert any("saw as few as 2 values a channel" in note for note in notes)


@pytest.mark.thorough
def test_attention_and_layernorm_are_recovered_too():
    from structprune.models import build_model
    from structprune.recipe import ModelSpec

    model = build_model(ModelSpec(name="test_vit"), seed=0)
    images = torch.randn(8, 3, 160, 160)
    graph = sp.trace(model, images[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.8}, align=1)
    slim = sp.prune(model, plan)
    done = sp.recover(model, slim, plan, images, ["means", "least_squares"])
    assert error(model, done.model, images) < error(model, slim, images)
    assert sp.verify(expanded(model, done.model, plan), done.model, plan, images[:2]).passed


def test_the_graph_form_is_recovered_too():
    model = randomise(Block())
    graph = sp.trace(model, DATA[:1], form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1)
    slim = sp.prune(model, plan)
    done = sp.recover(model, slim, plan, DATA, ["means", "least_squares"])
    assert error(model, done.model) < error(model, slim)
    assert sp.verify(expanded(model, done.model, plan), done.model, plan, DATA[:2]).passed


def test_steps_in_an_order_that_can_not_work_are_refused():
    model = randomise(Chain())
    plan, slim = pruned(model, DATA[:1])
    for steps, message in (
        (["least_squares", "means"], "put `means` before `least_squares`: `least_squares` already corrects the means"),
        (["means", "means"], "means is there 2 times"),
        (["mean"], "unknown recovery 'mean': did you mean means"),
        ([{"method": "least_squares", "ridge": 0}], "greater than 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            sp.recover(model, slim, plan, DATA, steps)
