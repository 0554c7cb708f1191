"""Least squares behind the cut: layers that lost nothing, and those that are added to a shortcut, against SciPy."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
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
def test_where_rows_are_few_one_factor_a_channel_may_be_the_better_fit():
    """40 images for 64 features that are the dense network's halved: half the rows that a full fit would need."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    data = torch.randn(40, 6)
    graph = sp.trace(model, data[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.95}, align=1, ignore=["2"])
    slim = sp.prune(model, plan)
    done = sp.recover(model, slim, plan, list(data.split(10)), [{"method": "least_squares"}]).model
    x = torch.randn(500, 6)
    before, after = (float((net(x) - model(x)).square().mean()) for net in (slim, done))
    assert after < before
