"""Scores, scans and recovery where layers are grouped, shared, transposed, called twice or read in odd ways."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.criteria.local_search import elimination
from structprune.criteria.reconstruction import refitted
from structprune.criteria.views import GroupView
from structprune.errors import ModelError, PlanError
from structprune.verify import expanded
from tests.example_networks import pruned, randomise

DATA = torch.randn(40, 3, 10, 10, generator=torch.Generator().manual_seed(3))


class Function(nn.Module):
    """Layers by name, and a forward pass as a function of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.how = forward

    def forward(self, x):
        return self.how(self, x)


def error(model, slim):
    x = torch.randn(32, 3, 10, 10, generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        return float((slim(x) - model(x)).square().mean())


def test_a_grouped_consumer_is_fitted_block_by_block():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ).eval()
    with torch.no_grad():  # the second block's inputs are near copies of the first's, which it can not read
        model[0].weight[4:] = model[0].weight[:4] + 0.01 * torch.randn(4, 3, 3, 3)
        model[0].bias[4:] = model[0].bias[:4]
    graph = sp.trace(model, DATA[:1])
    seen = []

    def look(group):
        seen.append(group)
        return torch.arange(group.units).double()

    entry = sp.criterion(f"look_{id(seen)}", "x", needs=("samples", "widths"), sequential=True)
    sp.score(graph, entry(look), DATA, widths={g.name: g.units for g in graph.groups})
    view = next(v for v in seen if v.name == "0")
    first, second = view.consumers
    assert first.index.flatten().tolist() == [0, 1, 2, 3]
    kept = torch.tensor([True, True, True, True, True, True, False, True])
    made, _ = refitted(view, second, kept)
    assert made.shape == (3, 4, 9)
    whole, _ = refitted(view, first, kept)
    assert float((whole - first.weight).abs().max()) < 0.2 * float(first.weight.abs().max())
    costs = elimination(GroupView("g", 8, (), consumers=view.consumers, kept=4))
    assert torch.isfinite(costs).all()


def test_an_offset_that_several_calls_share_is_left_alone():
    twice = Function(
        lambda m, x: torch.cat([m.head(F.relu(m.a(x))), m.head(F.relu(m.a(x)))], 1),
        a=nn.Conv2d(3, 12, 3),
        head=nn.Conv2d(12, 4, 1),
    ).eval()
    plan, slim = pruned(twice, DATA[:1])
    done = sp.recover(twice, slim, plan, DATA, ["means", "least_squares"])
    assert torch.equal(done.model.head.bias, slim.head.bias)
    assert any("head has no bias and no BatchNorm of its own" in note for note in done.notes)
    shared = Function(
        lambda m, x: torch.cat([m.bn(m.b(F.relu(m.a(x)))), m.bn(m.c(F.relu(m.a(x))))], 1),
        a=nn.Conv2d(3, 12, 3, bias=False),
        b=nn.Conv2d(12, 4, 1, bias=False),
        c=nn.Conv2d(12, 4, 1, bias=False),
        bn=nn.BatchNorm2d(4),
    )
    randomise(shared)
    plan, slim = pruned(shared, DATA[:1])
    done = sp.recover(shared, slim, plan, DATA, ["least_squares"])
    assert torch.equal(done.model.bn.running_mean, slim.bn.running_mean)
    assert error(shared, done.model) < error(shared, slim)


@pytest.mark.parametrize("groups", [1, 2])
def test_means_reach_transposed_convolutions_too(groups):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 12, 2, stride=2, groups=groups),
        nn.ReLU(),
        nn.Conv2d(12, 4, 1),
    ).eval()
    plan, slim = pruned(model, DATA[:1], macs=0.4)
    done = sp.recover(model, slim, plan, DATA, ["means"])
    assert error(model, done.model) < error(model, slim)
    gate = sp.verify(expanded(model, done.model, plan), done.model, plan, DATA[:2])
    assert gate.passed, gate.reasons()
    notes = sp.recover(model, slim, plan, DATA, ["least_squares"]).notes
    assert any("transposed convolutions are not refitted" in note for note in notes)


def test_means_of_blocks_that_keep_the_same_places():
    model = Function(
        lambda m, x: m.out(
            F.relu((m.a(x.mean((2, 3)))[:, :, None] * m.b(x.amax((2, 3)))[:, None, :]).flatten(1))[:, :, None].repeat(
                1, 1, 3
            )
        ).flatten(1),
        a=nn.Linear(3, 4),
        b=nn.Linear(3, 8),
        out=nn.Conv1d(32, 8, 1, groups=2),
    ).eval()
    graph = sp.trace(model, DATA[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"params": 0.75}, align=1)
    if "out.weight" not in plan.keep:
        pytest.skip("nothing of the grouped convolution's inputs goes")
    slim = sp.prune(model, plan)
    done = sp.recover(model, slim, plan, DATA, ["means"])
    with torch.no_grad():
        offset = (model(DATA) - slim(DATA)).reshape(len(DATA), 8, 3).mean((0, 2))
    torch.testing.assert_close(done.model.out.bias - slim.out.bias, offset, rtol=1e-3, atol=1e-4)
    assert np.isfinite(sp.score(graph, "variance", DATA).values["a"]).all()


def test_batchnorms_epsilon_counts():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6, eps=0.5), nn.Conv2d(6, 2, 1)
    ).eval()
    plan, slim = pruned(model, DATA[:1], ignore=["2"], macs=0.8)
    both = sp.recover(model, slim, plan, DATA, ["batchnorm", "least_squares"]).model
    alone = sp.recover(model, slim, plan, DATA, ["least_squares"]).model
    assert error(model, both) < 1.2 * error(model, alone) + 1e-6


def test_a_linear_layer_before_a_norm_over_tokens():
    model = Function(
        lambda m, x: m.c(F.relu(m.bn(m.b(F.relu(m.a(x.flatten(2).mT[:, :5])))))).mean(1),
        a=nn.Linear(3, 8),
        b=nn.Linear(8, 8),
        bn=nn.BatchNorm1d(5),
        c=nn.Linear(8, 4),
    ).eval()
    randomise(model)
    plan, slim = pruned(model, DATA[:1])
    done = sp.recover(model, slim, plan, DATA, ["means", "least_squares"])
    assert torch.equal(done.model.bn.running_mean, slim.bn.running_mean)
    assert error(model, done.model) < error(model, slim)


def test_the_scan_silences_consumers_that_it_can_not_fit():
    model = Function(
        lambda m, x: 0.001 * m.b(F.relu(m.a(x))) + m.up(F.relu(m.a(x))),
        a=nn.Conv2d(3, 8, 1),
        b=nn.Conv2d(8, 4, 1),
        up=nn.ConvTranspose2d(8, 4, 1),
    ).eval()
    graph = sp.trace(model, DATA[:1])
    found = sp.sensitivity(graph, sp.score(graph, "l1"), DATA)
    assert found.losses["a"][2] > 0.01


def test_what_is_written_in_place_later_is_seen_as_it_was():
    def forward(m, x):
        x = F.relu(m.a(x))
        y = m.b(x)
        x += 1
        return m.c(x + y)

    model = Function(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 8, 1), c=nn.Conv2d(8, 2, 1)).eval()
    with torch.no_grad():
        shares = (F.relu(model.a(DATA)) > 0).double().mean((0, 2, 3))
    seen = []

    def look(group):
        seen.extend(a for a in group.activations if a.module == "b")
        return torch.zeros(group.units)

    sp.score(sp.trace(model, DATA[:1]), sp.criterion(f"x{id(seen)}", "x", needs=("activations",))(look), DATA[:16])
    torch.testing.assert_close((seen[0].values > 0).double().mean((0, 2)), shares, rtol=0, atol=0.1)


def test_maps_behind_flatten_and_pooling_are_maps():
    """Criteria on feature maps look before an average, and take the places of a flattened channel together."""
    for tail in (nn.Flatten(), nn.AdaptiveAvgPool2d(1)):
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), tail, nn.Flatten(), nn.LazyLinear(4)).eval()
        model(DATA[:1])
        with torch.no_grad():
            maps = F.relu(model[0](DATA[:4])).flatten(2).double().numpy()
        graph = sp.trace(model, DATA[:1])
        np.testing.assert_allclose(sp.score(graph, "apoz", DATA[:4]).values["0"], (maps != 0).mean((0, 2)), rtol=1e-6)
        whole = np.linalg.svd(maps, compute_uv=False).sum(1)
        expected = []
        for c in range(6):
            masked = maps.copy()
            masked[:, c] = 0
            expected.append((whole - np.linalg.svd(masked, compute_uv=False).sum(1)).mean())
        np.testing.assert_allclose(sp.score(graph, "chip", DATA[:4]).values["0"], expected, rtol=1e-4, atol=1e-5)


def test_plans_for_given_widths_keep_to_their_constraints():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    graph = sp.trace(model, DATA[:1])
    scores = sp.score(graph, "l1_greedy", widths={"0": 12, "2": 9})
    for options in ({"ignore": ["0"]}, {"align": 4}, {"max_ratio": 0.3}):
        with pytest.raises(PlanError, match=r"l1_greedy ranked group . for .* which these constraints do not allow"):
            sp.plan(graph, scores, {"macs": 0.8}, **{"align": 1, **options})
    with pytest.raises(PlanError, match="that l1_greedy ranked for are over the budget"):
        sp.plan(graph, scores, {"macs": 0.2}, align=1)


def test_a_tight_budget_is_met_by_the_narrowest_width():
    model = nn.Sequential(nn.Conv2d(3, 480, 1), nn.ReLU(), nn.Conv2d(480, 4, 1)).eval()
    graph = sp.trace(model, DATA[:1])
    scores = sp.score(graph, "l1")
    scan = sp.sensitivity(graph, scores, DATA, ratios=(0.5,))
    least = graph.macs() // 480 + 1
    plan = sp.plan(graph, scores, {"macs": least}, allocation="sensitivity", sensitivity=scan, max_ratio=1.0, align=1)
    assert plan.macs["slim"] <= least


@pytest.mark.parametrize("allocation", ["uniform", "global", "threshold", "sensitivity"])
def test_every_allocation_leaves_groups_without_scores_whole(allocation):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)
    ).eval()
    graph = sp.trace(model, DATA[:1])
    scores = sp.score(graph, "slimming")
    scan = sp.sensitivity(graph, scores, DATA) if allocation == "sensitivity" else None
    plan = sp.plan(graph, scores, {"macs": 0.8}, allocation=allocation, sensitivity=scan, align=1)
    assert plan.widths["3"] == 8 > plan.widths["0"]


def test_channels_of_which_some_have_no_batchnorm_stay_whole():
    model = Function(
        lambda m, x: m.out(F.relu(torch.cat([m.bn(m.a(x)), m.b(x)], 1) + m.c(x))),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(3, 4, 1),
        c=nn.Conv2d(3, 8, 1),
        bn=nn.BatchNorm2d(4),
        out=nn.Conv2d(8, 8, 1),
        more=nn.Conv2d(8, 2, 1),
    ).eval()
    graph = sp.trace(model, DATA[:1])
    with pytest.raises(ModelError, match="only a part of its channels"):
        sp.score(graph, "slimming")


@pytest.mark.parametrize("name", ["obs", "osscar"])
def test_the_refit_where_a_position_hangs_on_two_units(name):
    model = Function(
        lambda m, x: m.out((m.a(x.mean((2, 3)))[:, :, None] * m.a(x.mean((2, 3)))[:, None, :]).flatten(1)),
        a=nn.Linear(3, 6),
        out=nn.Linear(36, 4),
    ).eval()
    graph = sp.trace(model, DATA[:1])
    widths = {group.name: group.units // 2 for group in graph.groups}
    scores = sp.score(graph, name, DATA, widths=widths)
    assert all(np.isfinite(values).all() for values in scores.values.values())


def test_a_number_of_images_in_the_last_batch_does_not_count_twice():
    """Three batches of which one is smaller: the average of the squared gradients of the mean loss, by images."""
    model = randomise(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    )
    labels = torch.arange(40) % 5
    expected = torch.zeros(8)
    for images, target in zip(DATA.split(16), labels.split(16), strict=True):
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), target), model[0].weight)
        expected += (gradient * model[0].weight.detach()).sum((1, 2, 3)).square() * len(images) / 40
    scores = sp.score(sp.trace(model, DATA[:1]), "taylor", DATA, labels=labels)
    np.testing.assert_allclose(scores.values["0"], expected, rtol=1e-4)
