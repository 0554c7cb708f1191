"""Criteria that look at activations, gradients and samples, each against its definition computed another way."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.criteria.reconstruction import (
    contributions,
    removal_order,
    scaled,
    selection_order,
)
from structprune.errors import RecipeError
from structprune.tasks import TASKS
from structprune.tasks.building import make_task
from tests.example_networks import Chain, randomise

DATA = torch.randn(20, 3, 10, 10, generator=torch.Generator().manual_seed(7))


def inner(model, x):
    """What conv2 of a Chain takes in."""
    return F.relu(model.bn1(model.conv1(x)))


def test_variance_is_of_the_activation_times_the_energy_of_its_kernels():
    model = randomise(Chain())
    scores = sp.score(sp.trace(model, DATA[:1]), "variance", DATA)
    with torch.no_grad():
        passed = inner(model, DATA).double().var((0, 2, 3), unbiased=False) * model.conv2.weight.double().square().sum(
            (0, 2, 3)
        )
    np.testing.assert_allclose(scores.values["conv1"], passed / passed.sum(), rtol=1e-5)


def test_apoz_counts_zeros():
    model = randomise(Chain())
    scores = sp.score(sp.trace(model, DATA[:1]), "apoz", DATA)
    with torch.no_grad():
        zeros = (inner(model, DATA) == 0).double().mean((0, 2, 3))
    np.testing.assert_allclose(scores.values["conv1"], 1 - zeros, rtol=1e-6)


def test_chip_by_singular_values_of_masked_maps():
    model = randomise(Chain())
    scores = sp.score(sp.trace(model, DATA[:1]), "chip", DATA[:3])
    expected = np.zeros(8)
    with torch.no_grad():
        for maps in inner(model, DATA[:3]).flatten(2).double().numpy():
            whole = np.linalg.svd(maps, compute_uv=False).sum()
            for c in range(8):
                masked = maps.copy()
                masked[c] = 0
                expected[c] += (whole - np.linalg.svd(masked, compute_uv=False).sum()) / 3
    np.testing.assert_allclose(scores.values["conv1"], expected, rtol=1e-5, atol=1e-7)


def test_bn_expectation_is_the_closed_form_for_relu_and_what_samples_say():
    model = randomise(Chain())
    scores = sp.score(sp.trace(model, DATA[:1]), "bn_expectation").values["conv1"]
    for c, (gamma, beta) in enumerate(zip(model.bn1.weight.abs().tolist(), model.bn1.bias.tolist(), strict=True)):
        t = beta / gamma
        closed = beta * 0.5 * (1 + math.erf(t / math.sqrt(2))) + gamma * math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        assert scores[c] == pytest.approx(closed, rel=0.02)


def test_bn_variance_is_what_normal_samples_pass_on():
    model = randomise(Chain())
    scores = sp.score(sp.trace(model, DATA[:1]), "bn_variance").values["conv1"]
    z = torch.randn(200_000, 8, dtype=torch.float64) * model.bn1.weight + model.bn1.bias
    passed = z.relu().var(0) * model.conv2.weight.double().square().sum((0, 2, 3))
    np.testing.assert_allclose(scores, (passed / passed.sum()).detach(), rtol=0.03)


def test_taylor_is_the_squared_change_of_the_loss_by_finite_differences():
    model = randomise(Chain()).double()
    data, labels = DATA[:6].double(), torch.arange(6) % 5
    scores = sp.score(sp.trace(model, data[:1]), "taylor", data, labels=labels).values["conv2"]

    def loss(scale, j):
        weight = model.conv2.weight.detach().clone()
        weight[j] *= scale
        made = F.conv2d(inner(model, data), weight, model.conv2.bias).mean((2, 3))
        return float(F.cross_entropy(model.fc(made), labels).detach())

    for j in range(6):  # d loss / d scale at 1 is the sum of weight times gradient
        assert scores[j] == pytest.approx(((loss(1 + 1e-6, j) - loss(1 - 1e-6, j)) / 2e-6) ** 2, rel=1e-4)


def test_taylor_activation_is_the_change_when_an_image_s_channel_is_scaled():
    model = randomise(Chain()).double()
    data, labels = DATA[:6].double(), torch.arange(6) % 5
    scores = sp.score(sp.trace(model, data[:1]), "taylor_activation", data, labels=labels).values["conv1"]
    expected = np.zeros(8)
    with torch.no_grad():
        maps = inner(model, data)
        for i, c in itertools.product(range(6), range(8)):

            def loss(scale, i=i, c=c):
                moved = maps[i : i + 1].clone()
                moved[:, c] *= scale
                return float(F.cross_entropy(model.fc(model.conv2(moved).mean((2, 3))), labels[i : i + 1]))

            expected[c] += abs(loss(1 + 1e-6) - loss(1 - 1e-6)) / 2e-6 / 100 / 6
    np.testing.assert_allclose(scores, expected / np.linalg.norm(expected), rtol=1e-4)


def test_labels_default_to_what_the_network_says():
    model = randomise(Chain())
    graph = sp.trace(model, DATA[:1])
    with torch.no_grad():
        own = model(DATA).argmax(1)
    assert np.array_equal(
        sp.score(graph, "taylor", DATA).values["conv1"], sp.score(graph, "taylor", DATA, labels=own).values["conv1"]
    )
    headless = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    with pytest.raises(
        RecipeError, match=r"gradients need class scores of shape \(images, classes\), and .* \(16, 4, "
    ):
        sp.score(sp.trace(headless, DATA[:1]), "taylor", DATA)


# --- ThiNet -----------------------------------------------------------------------------------------------------


def sampled(model, **options):
    """The view that thinet gets of a Chain's conv1."""
    seen = []

    @sp.criterion(f"seen_{len(sp.criteria.CRITERIA)}", "x", needs=("samples", "widths"), sequential=True)
    def look(group):
        seen.append(group)
        return torch.zeros(group.units)

    graph = sp.trace(model, DATA[:1])
    sp.score(graph, look, DATA, widths={group.name: group.units for group in graph.groups}, **options)
    return next(view for view in seen if view.name == graph.groups[0].name)


class Strided(nn.Module):
    """The consumer is padded, strided, dilated and grouped, with a bias."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 6, 3, padding=(2, 1), stride=(2, 1), dilation=(2, 1), groups=2),
        )
        self.c = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


@pytest.mark.parametrize("make", [Chain, Strided])
def test_contributions_add_up_to_real_outputs(make):
    """x̂ summed over channels is the layer's output less its bias at the sampled places, for any filter."""
    model = randomise(make())
    consumers = sampled(model).consumers
    layer = model.conv2 if make is Chain else model.b
    assert len(consumers) == layer.groups
    with torch.no_grad():
        taken = inner(model, DATA) if make is Chain else F.relu(model.a(DATA))
        outputs = (layer(taken) - layer.bias[:, None, None]).permute(0, 2, 3, 1).flatten(0, 2)
    made = torch.cat([torch.einsum("rck,ock->ro", block.windows, block.weight) for block in consumers], 1)
    nearest = torch.cdist(made.double(), outputs.double(), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    assert float(nearest.max()) < 1e-4
    assert len(made) >= 10 * len(DATA)


def test_the_greedy_removal_and_selection_against_exhaustive_steps():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 7)) @ rng.normal(size=(7, 7))
    y, gram = x.sum(1), torch.from_numpy(x.T @ x)
    removed, kept = [], []
    for _ in range(7):
        rest = [c for c in range(7) if c not in removed]
        removed.append(min(rest, key=lambda c: np.linalg.norm(x[:, [*removed, c]].sum(1))))
        rest = [c for c in range(7) if c not in kept]
        kept.append(min(rest, key=lambda c: np.linalg.norm(y - x[:, [*kept, c]].sum(1))))
    assert np.argsort(removal_order(gram).numpy()).tolist() == removed
    assert np.argsort(-selection_order(gram, torch.from_numpy(x.T @ y)).numpy()).tolist() == kept


def test_contributions_that_cancel_go_together():
    """The norm of the sum, and no sum of norms: after a, the channel that cancels it goes, not the smaller one."""
    x = np.array([[1.0, -1.1, 1.01], [1.0, -0.9, -1.0], [1.0, -1.01, 0.0], [0.0, 0.0, 1.0]])
    assert np.argsort((x**2).sum(0)).tolist() == [0, 2, 1]
    assert np.argsort(removal_order(torch.from_numpy(x.T @ x)).numpy()).tolist() == [0, 1, 2]


def test_scales_are_those_of_scipy():
    view = sampled(randomise(Chain()))
    (consumer,) = view.consumers
    kept = torch.tensor([True, True, False, True, False, True, True, False])
    view.generator.manual_seed(1)
    x, y = contributions(view, consumer)
    expected, *_ = scipy.linalg.lstsq(x[:, kept].numpy(), y.numpy())
    view.generator.manual_seed(1)
    made, offset = scaled(view, consumer, kept)
    assert not offset.any()
    assert not made[:, ~kept].any()
    ratio = (made / consumer.weight)[:, kept]
    np.testing.assert_allclose(ratio, np.broadcast_to(expected[None, :, None], ratio.shape), rtol=1e-4)


@pytest.mark.parametrize("name", ["thinet", "thinet_forward", "obs", "osscar"])
def test_the_next_group_is_ranked_on_the_already_pruned_network(name):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    graph = sp.trace(model, DATA[:1])
    alone = sp.score(graph, name, DATA, widths={"0": 8, "2": 4})
    after = sp.score(graph, name, DATA, widths={"0": 2, "2": 4})
    assert not np.array_equal(alone.values["2"], after.values["2"])
    plan = sp.plan(graph, after, {"macs": 0.9}, align=1)
    assert plan.widths == {"0": 2, "2": 4}


class _Maps(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return {"aux": x.mean(), "out": self.two(self.one(x).relu())}


def test_the_loss_of_taylor_is_the_tasks():
    torch.manual_seed(1)
    model, images = _Maps().eval(), torch.randn(16, 3, 6, 6)  # one batch
    masks = torch.randint(0, 4, (16, 6, 6))
    task = make_task(TASKS["segmentation"].spec(num_classes=4))
    graph = sp.trace(model, images[:1])
    with pytest.raises(RecipeError, match="gradients need class scores"):
        sp.score(graph, "taylor", images)
    for data, wanted in ((TensorDataset(images, masks), masks), (images, model(images)["out"].argmax(1))):
        found = sp.score(graph, "taylor", data, task=task).values["one"]
        loss = F.cross_entropy(model(images)["out"], wanted)
        (gradient,) = torch.autograd.grad(loss, model.one.weight)
        expected = (model.one.weight * gradient).sum((1, 2, 3)).square().detach().numpy()
        np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-3)
