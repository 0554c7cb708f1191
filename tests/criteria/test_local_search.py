"""The choice of units that knows of the refit, held against brute force over all subsets."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.criteria.local_search import elimination, search
from structprune.criteria.reconstruction import DAMPING, refitted
from structprune.criteria.views import Consumer, GroupView
from structprune.errors import RecipeError

DATA = torch.randn(48, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_obs_costs_are_those_of_refits_by_brute_force():
    """The first unit to go is the one after whose loss a least squares refit leaves the smallest error."""
    torch.manual_seed(0)
    windows, weight = torch.randn(400, 6, 4) @ torch.randn(4, 4), torch.randn(5, 6, 4)
    windows = windows + 0.5 * windows[:, :1]  # correlated channels
    view = GroupView("g", 6, (), consumers=(Consumer("layer", torch.arange(6)[:, None], windows, weight),), kept=1)
    left, order = set(range(6)), []
    for _ in range(5):
        order.append(min(left, key=lambda unit: left_by_refit(view, left - {unit})))
        left.remove(order[-1])
    assert np.argsort(elimination(view).numpy())[:5].tolist() == order


def left_by_refit(view, kept):
    """What a (damped) least squares refit of each consumer on the kept units leaves, as a share of its outputs."""
    stays, total = torch.tensor([unit in kept for unit in range(view.units)]), 0.0
    for consumer in view.consumers:
        x = (consumer.windows - consumer.windows.mean(0)).flatten(1).double()
        system = x.T @ x / len(x)
        system += DAMPING * system.diagonal().mean() * torch.eye(len(system))
        weight = consumer.weight.flatten(1).double()
        change = refitted(view, consumer, stays)[0].flatten(1).double() - weight
        total += float((change * (change @ system)).sum() / (weight * (weight @ system)).sum())
    return total


def correlated(seed, units=8, kept=4, places=1, index=None, strata=None):
    """A group whose channels are mixtures of a few, with two consumers: one of few outputs, one of many."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(units)[:, None] if index is None else index
    columns = len(index) * places
    consumers = []
    for outputs in (4, 24):
        few = torch.randn(60, 4, generator=generator) @ torch.randn(4, columns, generator=generator)
        windows = (few + 0.3 * torch.randn(60, columns, generator=generator)).reshape(60, len(index), places)
        weight = torch.randn(outputs, len(index), places, generator=generator)
        consumers.append(Consumer(f"to {outputs}", index, windows, weight))
    rates = (1,) * (1 if strata is None else int(strata.max()) + 1)
    return GroupView("g", units, (), consumers=tuple(consumers), kept=kept, strata=strata, rates=rates)


PRODUCTS = torch.cartesian_prod(torch.arange(4), torch.arange(4, 8))  # positions that hang on two units


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": range(6, 11)},
        {"places": 3, "seeds": (0, 1, 2, 14)},
        {"strata": torch.arange(8) % 2, "seeds": range(10, 14)},
        {"index": PRODUCTS, "kept": 6, "seeds": range(14, 17)},
    ],
    ids=["single columns", "kernels", "balanced", "two units a position"],
)
def test_swaps_come_near_the_best_of_all_subsets(options):
    options, gaps, won = dict(options), [], 0
    seeds = options.pop("seeds")
    for seed in seeds:
        view = correlated(seed, **options)
        scores, lost = search(view, damping=DAMPING)
        greedy = search(view, swaps=False, damping=DAMPING)[1]
        kept = set(scores.argsort(descending=True)[: view.kept].tolist())
        assert lost == pytest.approx(left_by_refit(view, kept), rel=1e-6)  # which is what the refit leaves
        assert lost <= greedy * (1 + 1e-9)
        gaps.append(lost / min(left_by_refit(view, subset) for subset in subsets(view)) - 1)
        won += lost < greedy * (1 - 1e-6)
    assert np.mean(gaps) < 0.03
    assert sum(gap < 1e-6 for gap in gaps) >= len(seeds) - 1
    assert won >= 2  # where greedy alone is not the best


def subsets(view):
    """All choices of as many units as stay, of each stratum as many."""
    for subset in itertools.combinations(range(view.units), view.kept):
        counts = {} if view.strata is None else torch.bincount(view.strata[list(subset)]).tolist()
        if len(set(counts)) <= 1:
            yield set(subset)


def test_what_is_separable_is_exact():
    """Where no two channels have anything in common, the best units are those of the largest energy."""
    windows = torch.zeros(64, 8, 1)
    windows[torch.arange(64), torch.arange(64) % 8, 0] = torch.tensor([1.0, -1.0]).repeat_interleave(8).repeat(4)
    weight = torch.randn(5, 8, 1, generator=torch.Generator().manual_seed(0))
    view = GroupView("g", 8, (), consumers=(Consumer("layer", torch.arange(8)[:, None], windows, weight),), kept=3)
    kept = search(view)[0].argsort(descending=True)[:3]
    assert set(kept.tolist()) == set(weight.square().sum((0, 2)).argsort(descending=True)[:3].tolist())


def test_one_of_each_pair_of_copies_stays():
    """Half of the inputs are copies of others: a refit of what is left makes the same outputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight[6:], model[0].bias[6:] = model[0].weight[:6], model[0].bias[:6]
    graph = sp.trace(model, DATA[:1])
    plan = sp.plan(graph, sp.score(graph, "obs", DATA, widths={"0": 6, "2": 6}), {"channels": 1.0}, align=1)
    assert sorted(unit % 6 for unit in plan.groups["0"]["kept"]) == list(range(6))
    slim = sp.recover(model, sp.prune(model, plan), plan, DATA, ["least_squares"]).model
    fresh = torch.randn(8, 3, 10, 10)
    with torch.no_grad():
        assert float((slim(fresh) - model(fresh)).square().mean()) < 1e-6 * float(model(fresh).var())


def test_a_grouped_convolution_is_followed_through_and_keeps_equally_many_of_each_block():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    graph = sp.trace(model, DATA[:1])
    widths = {group.name: group.units // 2 for group in graph.groups}
    scores = sp.score(graph, "osscar", DATA, widths=widths)
    plan = sp.plan(graph, scores, {"channels": 1.0}, align=1)
    assert plan.widths == widths
    for group in graph.groups:
        best = np.argsort(-scores.values[group.name])[: widths[group.name]]
        assert sorted(best.tolist()) == list(plan.groups[group.name]["kept"])  # so the choice was one that may be
    slim = sp.prune(model, plan)
    assert sp.verify(model, slim, plan, DATA[:4]).passed


class Copies(torch.nn.Module):
    """Each channel of `first` is there twice, and the large ones are copies: by size the wrong ones go."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 12, 1), torch.nn.Conv2d(12, 5, 1)
        with torch.no_grad():
            self.first.weight[3:6] = 3 * self.first.weight[:3]
            self.first.bias[3:6] = 3 * self.first.bias[:3]
            self.first.weight[:6] *= 10
            self.first.bias[:6] *= 10
            self.second.weight[:, 6:] *= 100

    def forward(self, x):
        return self.second(self.first(x).relu()).mean((2, 3))


def test_a_scan_by_a_criterion_of_its_own_knows_what_a_refit_makes_up_for():
    """Three of twelve units can go for nothing, as their copies make up for them; by L1 norms three others go."""
    torch.manual_seed(0)
    model, images = Copies().eval(), torch.randn(64, 3, 6, 6)
    graph = sp.trace(model, images[:1])
    scores = sp.score(graph, "l1")
    batches = list(images.split(16))
    by_size, own = (
        sp.sensitivity(graph, scores, batches, ratios=[0.25], criterion=criterion).losses["first"][9]
        for criterion in (None, "osscar")
    )
    assert own < 0.05 * by_size
    with pytest.raises(RecipeError, match="criterion l1 can't choose the units of a scan"):
        sp.sensitivity(graph, scores, batches, criterion="l1")


def test_a_scan_puts_coupled_scores_together_as_it_is_told():
    """By the larger of two coupled layers' scores the last units go, by those of the first layer the first."""

    @sp.criterion("two_orders", "x", needs=("samples", "widths"), combine="max")
    def two_orders(group):
        places = torch.arange(12.0)
        return [places, 48 - 2 * places]

    graph = sp.trace(Copies().eval(), torch.randn(1, 3, 6, 6))
    scores, batches = sp.score(graph, "l1"), list(torch.randn(64, 3, 6, 6).split(16))

    def losses(**options):
        return sp.sensitivity(graph, scores, batches, ratios=[0.25], **options).losses["first"][9]

    last = dataclasses.replace(scores, values={"first": torch.arange(12.0).flip(0).numpy()})
    first = dataclasses.replace(scores, values={"first": torch.arange(12.0).numpy()})
    by_leading = sp.sensitivity(graph, first, batches, ratios=[0.25]).losses["first"][9]
    assert losses(criterion="two_orders", combine="leading") == by_leading
    by_larger = sp.sensitivity(graph, last, batches, ratios=[0.25]).losses["first"][9]
    assert losses(criterion="two_orders") == by_larger != by_leading
    for options, message in [
        ({"combine": "max"}, "leave combine out"),
        ({"criterion": "osscar", "combine": "max"}, "nothing to combine"),
        ({"criterion": "two_orders", "combine": "least"}, "unknown way to combine"),
    ]:
        with pytest.raises(RecipeError, match=message):
            losses(**options)
