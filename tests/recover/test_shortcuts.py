"""Least squares behind the cut: layers that lost nothing, and those that are added to a shortcut, against SciPy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import RecipeError
from tests.example_networks import randomise

DATA = torch.randn(48, 3, 4, 4, generator=torch.Generator().manual_seed(3))
EXACT = {"method": "least_squares", "ridge": 1e-9}  # on maps of 4×4 all places are taken


class Residual(nn.Module):
    """A shortcut that a cut inside of `stem` changes, and a branch behind it that loses nothing itself."""

    def __init__(self, norm=True, written=False):
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 6, 1)
        self.branch = nn.Conv2d(6, 6, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.head, self.written = nn.Conv2d(6, 4, 1), written

    def shortcut(self, x):
        return self.narrow(F.relu(self.stem(x)))

    def forward(self, x):
        x = self.shortcut(x)
        y = self.norm(self.branch(F.relu(x)))
        if self.written:
            y += x
        else:
            y = x + y
        return self.head(F.relu(y))


def cut(model):
    """Without half of what `stem` makes, and nothing else."""
    model = randomise(model)
    graph = sp.trace(model, DATA[:1])
    others = [group.name for group in graph.groups if group.name != "stem"]
    plan = sp.plan(
        graph, sp.score(graph, "l1"), {"channels": 1 - 8 / sum(g.units for g in graph.groups)}, ignore=others
    )
    assert set(plan.keep) == {"stem.weight", "stem.bias", "narrow.weight"}
    return model, plan, sp.prune(model, plan)


def rows(x):
    return x.detach().permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def best(x, target):
    """The nearest to a target that a convolution of windows of 3×3 with padding can make, by SciPy."""
    windows = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1).double().numpy()
    inputs = np.c_[windows, np.ones(len(windows))]
    solution, *_ = scipy.linalg.lstsq(inputs, target)
    return inputs @ solution


@pytest.mark.parametrize("written", [False, True])
@torch.no_grad()
def test_the_end_of_a_branch_makes_up_for_what_the_shortcut_lost(written):
    model, plan, slim = cut(Residual(written=written))
    done = sp.recover(model, slim, plan, DATA, [EXACT]).model
    there, here = model.shortcut(DATA), done.shortcut(DATA)
    wanted = there + model.norm(model.branch(F.relu(there))) - here
    made = rows(done.norm(done.branch(F.relu(here))))
    np.testing.assert_allclose(made, best(F.relu(here), rows(wanted)), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_without_shortcuts_a_branch_is_to_make_what_it_made():
    model, plan, slim = cut(Residual(norm=False))
    done = sp.recover(model, slim, plan, DATA, [{**EXACT, "shortcuts": False}]).model
    there, here = F.relu(model.shortcut(DATA)), F.relu(done.shortcut(DATA))
    made = rows(done.branch(here))
    np.testing.assert_allclose(made, best(here, rows(model.branch(there))), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_consumers_alone_are_fitted_where_that_is_asked_for():
    model, plan, slim = cut(Residual(norm=False))
    done = sp.recover(model, slim, plan, DATA, [{**EXACT, "fitted": "consumers"}])
    assert done.layers == [1]
    for name in ("branch", "head"):
        assert torch.equal(getattr(done.model, name).weight, getattr(slim, name).weight)
    assert not torch.equal(done.model.narrow.weight, slim.narrow.weight)
    everything = sp.recover(model, slim, plan, DATA, [EXACT])
    assert everything.layers == [3]
    x = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    errors = [float((net(x) - model(x)).square().mean()) for net in (slim, done.model, everything.model)]
    assert errors == sorted(errors, reverse=True)


@torch.no_grad()
def test_scales_are_those_of_the_layers_that_lost_inputs_alone():
    model, plan, slim = cut(Residual(norm=False))
    done = sp.recover(model, slim, plan, DATA, [{"method": "least_squares", "weights": "scales"}])
    assert done.layers == [1]
    assert torch.equal(done.model.branch.weight, slim.branch.weight)


class Around(nn.Module):
    """Sums whose other summand is no shortcut: made after the layer, a constant, or of fewer numbers."""

    def __init__(self, kind):
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 6, 1)
        self.branch, self.later = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.constant, self.kind = nn.Parameter(torch.randn(1, 6, 4, 4)), kind

    def forward(self, x):
        x = self.narrow(F.relu(self.stem(x)))
        y = self.branch(F.relu(x))
        if self.kind == "constant":
            return y + self.constant
        if self.kind == "broadcast":
            return y + x.mean((2, 3), keepdim=True)
        if self.kind == "doubled":
            return torch.add(x, y, alpha=2)
        return y + self.later(x)


@pytest.mark.parametrize("kind", ["constant", "broadcast", "doubled"])
@torch.no_grad()
def test_other_sums_leave_a_layer_s_own_outputs_as_what_is_wanted(kind):
    model, plan, slim = cut(Around(kind))
    with_sums, without = (
        sp.recover(model, slim, plan, DATA, [{**EXACT, "shortcuts": shortcuts}]).model for shortcuts in (True, False)
    )
    assert torch.equal(with_sums.branch.weight, without.branch.weight)
    assert not torch.equal(with_sums.branch.weight, slim.branch.weight)


@torch.no_grad()
def test_of_two_layers_that_are_added_the_later_one_makes_up():
    model, plan, slim = cut(Around("both"))
    with_sums, without = (
        sp.recover(model, slim, plan, DATA, [{**EXACT, "shortcuts": shortcuts}]).model for shortcuts in (True, False)
    )
    assert torch.equal(with_sums.branch.weight, without.branch.weight)
    assert not torch.equal(with_sums.later.weight, without.later.weight)
    error, before = (float((net(DATA) - model(DATA)).square().mean()) for net in (with_sums, without))
    assert error < before


@torch.no_grad()
def test_where_rows_are_few_one_factor_a_channel_is_tried_beside():
    """The consumer has 64 inputs and 40 rows. What it lost is made up for by scaling what stays: SciPy's full fit, at
    any ridge, is worse on other images than factors are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 80), nn.ReLU(), nn.Linear(80, 10)).eval()
    data = torch.randn(40, 6)
    graph = sp.trace(model, data[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.8}, align=1)
    slim = sp.prune(model, plan)
    batches = list(data.split(10))
    steps: list = [{"method": "least_squares"}, {"method": "least_squares", "weights": "scales"}]
    free, factors = (sp.recover(model, slim, plan, batches, [step]).model[2].weight for step in steps)
    ratios = (free / slim[2].weight, factors / slim[2].weight)
    torch.testing.assert_close(ratios[1], ratios[1][:1].expand_as(ratios[1]), rtol=1e-3, atol=1e-4)
    assert torch.equal(free, factors) or float((ratios[0] - ratios[0][:1]).abs().max()) > 1e-3


class Odd(nn.Module):
    """Layers behind a cut whose weights are shared, fixed, or have a bias that is computed."""

    def __init__(self):
        super().__init__()
        self.table, self.up, self.down = nn.Embedding(20, 6), nn.Linear(6, 16), nn.Linear(16, 6)
        self.qkv, self.bias, self.head = nn.Linear(6, 9, bias=False), nn.Parameter(torch.randn(9)), nn.Linear(9, 6)
        self.register_buffer("fixed", torch.randn(6, 6))

    def tokens(self, words):
        x = self.table(words)
        return x + self.down(F.relu(self.up(x)))

    def forward(self, words):
        x = self.tokens(words)
        y = F.linear(x, self.qkv.weight, torch.cat([self.bias[:3], torch.zeros(3), self.bias[6:]]))
        x = F.linear(x + self.head(F.relu(y)), self.fixed)
        return F.linear(x, self.table.weight)


@torch.no_grad()
def test_shared_and_fixed_weights_stay_and_a_computed_bias_is_not_counted_twice():
    torch.manual_seed(0)
    model = Odd().eval()
    words = [torch.randint(0, 20, (16, 12), generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    graph = sp.trace(model, words[0])
    others = [group.name for group in graph.groups if group.name != "up"]
    plan = sp.plan(
        graph, sp.score(graph, "l1"), {"channels": 1 - 8 / sum(g.units for g in graph.groups)}, ignore=others
    )
    slim = sp.prune(model, plan)
    done = sp.recover(model, slim, plan, words, [EXACT]).model
    for key in ("table.weight", "fixed", "bias"):
        assert torch.equal(done.state_dict()[key], slim.state_dict()[key])
    here, there = (torch.cat([net.tokens(batch).flatten(0, 1) for batch in words]) for net in (done, model))
    solution, *_ = scipy.linalg.lstsq(here.double().numpy(), (there @ model.qkv.weight.mT).double().numpy())
    np.testing.assert_allclose(done.qkv.weight, solution.T, rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_one_batch_fits_consumers_alone_and_says_so():
    model, plan, slim = cut(Residual(norm=False))
    done = sp.recover(model, slim, plan, [DATA], ["least_squares"])
    assert done.layers == [1]
    assert torch.equal(done.model.branch.weight, slim.branch.weight)
    assert any("one batch can't tell" in note for note in done.notes)


@torch.no_grad()
def test_nothing_is_asked_of_channels_that_a_batchnorm_closes():
    model, plan, _ = cut(Residual())
    model.norm.weight[0] = 1e-9
    done = sp.recover(model, sp.prune(model, plan), plan, DATA, [EXACT]).model
    assert float(done.branch.weight.abs().max()) < 100
    x = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    before, after = (float((net(x) - model(x)).square().mean()) for net in (sp.prune(model, plan), done))
    assert after < before


@torch.no_grad()
def test_shortcuts_of_merged_channels_are_their_clusters_means():
    model = randomise(Residual(norm=False))
    graph = sp.trace(model, DATA[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.6}, align=1, surgery="merge")
    slim = sp.prune(model, plan)
    assert any("narrow" in key for key in plan.merges["axes"])
    errors = {}
    for shortcuts in (True, False):
        done = sp.recover(
            model, slim, plan, list(DATA.split(12)), [{"method": "least_squares", "shortcuts": shortcuts}]
        )
        x = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(5))
        errors[shortcuts] = float((done.model(x) - model(x)).square().mean())
    before = float((slim(x) - model(x)).square().mean())
    assert max(errors.values()) < before
    assert errors[True] < errors[False]


class Deep(nn.Module):
    """Two residual blocks of depthwise and pointwise convolutions; nothing is lost but inside of `stem`."""

    def __init__(self):
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 8, 1)
        self.wide = nn.ModuleList([nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 1)])
        self.depthwise = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1, groups=16) for _ in range(2)])
        self.back = nn.ModuleList([nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)])
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.narrow(F.relu(self.stem(x)))
        for wide, depthwise, back in zip(self.wide, self.depthwise, self.back, strict=True):
            x = x + back(F.relu(depthwise(F.relu(wide(x)))))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("form", ["module", "graph"])
@torch.no_grad()
def test_each_part_wins_in_either_form(form):
    model = randomise(Deep())
    data = torch.randn(256, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    graph = sp.trace(model, data[:1], form=form)
    others = [group.name for group in graph.groups if group.name != "stem"]
    share = 1 - 18 / sum(group.units for group in graph.groups)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": share}, ignore=others)
    slim = sp.prune(model, plan)
    x = torch.randn(128, 3, 6, 6, generator=torch.Generator().manual_seed(5))

    def error(**options):
        step = {"method": "least_squares", **options}
        done = sp.recover(model, slim, plan, list(data.split(32)), [step]).model
        return float((done(x) - model(x)).square().mean())

    errors = [error(fitted="consumers", shortcuts=False), error(shortcuts=False), error()]
    assert errors == sorted(errors, reverse=True)


def test_what_goes_with_factors_is_consumers_alone():
    model, plan, slim = cut(Residual(norm=False))
    for key, value in (("fitted", "behind"), ("shortcuts", True)):
        with pytest.raises(RecipeError, match="needs weights: full"):
            sp.recover(model, slim, plan, DATA, [{"method": "least_squares", "weights": "scales", key: value}])
