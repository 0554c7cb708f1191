"""One training step of masked dense and slim: equal where the cut is exact, and said where it can't be compared."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.verify import Comparison, training_step
from structprune.verify.running import Inputs, batches_of
from structprune.verify.training_step import compare_training
from tests.example_networks import Chain, pruned, randomise

X = torch.randn(4, 3, 10, 10)


class Body(nn.Module):
    """Convolutions with biases before BatchNorms: their gradients are zero but for rounding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c, self.n = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.c2, self.n2 = nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)
        self.h, self.aux = nn.Conv2d(16, 5, 1), nn.Conv2d(5, 2, 1)

    def body(self, x):
        return F.gelu(self.n2(self.c2(F.relu(self.n(self.c(x))))))

    def forward(self, x):
        return self.h(self.body(x))


class Dropping(Body):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x):
        x = F.dropout(self.drop(self.body(x)), 0.5, self.training)
        return self.h(F.alpha_dropout(x, 0.2, self.training))


class Observed(Body):
    """Counts in a buffer, and keeps a running maximum of all channels."""

    def __init__(self):
        super().__init__()
        self.register_buffer("most", torch.zeros(()))

    def forward(self, x):
        x = self.body(x)
        if self.training:
            self.most.mul_(0.9).add_(0.1 * self.h.weight.detach().abs().max())
        return self.h(x)


class TrainingOutput(Body):
    """A second head that only trains, on channels that stay."""

    def forward(self, x):
        y = self.h(self.body(x))
        return (y, self.aux(y)) if self.training else y


class Attends(nn.Module):
    """LayerNorm and attention over channels that go: their masked statistics have gradients too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.c = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 3)
        self.q, self.k = nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, x):
        x = self.n(self.a(x))
        weights = torch.einsum("bnd,bmd->bnm", self.q(x).sigmoid(), self.k(x).sigmoid()).softmax(-1)
        return self.c(weights @ x)


class AlongChannels(nn.Module):
    """A BatchNorm whose statistics, in training mode, run over an axis that is pruned."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.l1, self.bn, self.l2 = nn.Linear(10, 8), nn.BatchNorm1d(5), nn.Linear(8, 2)

    def forward(self, x):
        return self.l2(self.bn(self.l1(x).relu()))


class Noisy(Body):
    def forward(self, x):
        x = self.body(x)
        return self.h(x + torch.randn_like(x) if self.training else x)


class MeansInTraining(Body):
    def forward(self, x):
        x = self.body(x)
        return (self.h(x), x.mean(1)) if self.training else self.h(x)


class NoGradient(Body):
    @torch.no_grad()
    def forward(self, x):
        return self.h(self.body(x))


class Integers(Body):
    def forward(self, x):
        return self.h(self.body(x)).argmax(1)


class InPlace(Body):
    def forward(self, x):
        return self.h(self.body(x).exp().add_(1))


class Refuses(Body):
    def forward(self, x):
        if self.training:
            raise NotImplementedError("only for inference")
        return self.h(self.body(x))


class AfterPooling(Body):
    """One value for each channel at batch 1."""

    def __init__(self):
        super().__init__()
        self.n3 = nn.BatchNorm2d(16)

    def forward(self, x):
        assert x.shape[0] == 1
        return self.h(self.n3(self.body(x).mean((2, 3), keepdim=True)))


def trained(model, x=X, plan=None, slim=None, right=True, **options):
    model.eval()
    if plan is None:
        plan, slim = pruned(model, x[:1], 0.6, **options)
    comparison = Comparison(tolerance=1e-9)
    compare_training(comparison, model, slim, plan, batches_of(model, Inputs.of(x)), right)
    return comparison


@pytest.mark.parametrize("kind", [Body, Dropping, Observed, TrainingOutput])
def test_exact_cuts_train_as_the_masked_network_does(kind):
    found = trained(kind())
    assert found.passed, found
    assert found.batches == [4]


def test_masked_statistics_have_gradients_too():
    found = trained(Attends(), torch.randn(2, 5, 6))
    assert found.passed, found
    assert found.max_rel < 1e-11


def test_frozen_weights_are_compared_too():
    model = Body().requires_grad_(False)
    assert trained(model).passed
    plan, slim = pruned(model, X[:1], 0.6)
    assert not any(p.requires_grad for p in (*model.parameters(), *slim.parameters()))
    slim.n.weight.data[0] *= 1.001
    assert trained(model, plan=plan, slim=slim).failed


def test_the_networks_are_left_as_they_were():
    model = Body().eval()
    plan, slim = pruned(model, X[:1], 0.6)
    before = {key: t.clone() for net in (model, slim) for key, t in net.state_dict().items()}
    trained(model, plan=plan, slim=slim)
    assert all(torch.equal(before[key], tensor) for key, tensor in slim.state_dict().items())
    assert not model.training
    assert not slim.training
    assert all(p.grad is None for p in (*model.parameters(), *slim.parameters()))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NoGradient, "no output has a gradient"),
        (Integers, "no output has a gradient"),
        (InPlace, "modified by an inplace operation"),
        (Refuses, "only for inference"),
        (Noisy, "draws random numbers in training mode"),
        (MeansInTraining, "exact in evaluation only"),
    ],
)
def test_what_has_no_training_step_to_compare_is_said(kind, reason):
    found = trained(kind())
    assert found.state == "not compared", found
    assert reason in found.detail


def test_one_value_a_channel_is_said():
    assert "Expected more than 1 value per channel" in trained(AfterPooling(), X[:1]).detail


def test_statistics_of_a_batch_over_the_channels_are_exact_in_evaluation_only():
    model, x = AlongChannels().eval(), torch.randn(4, 5, 10)
    plan, slim = pruned(model, x[:1], 0.6)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert "exact in evaluation only" in gate.not_compared()[0]
    slim.bn.weight.data[0] += 0.1  # what is wrong in evaluation is not excused by it
    assert "training" in {reason.partition(":")[0] for reason in sp.verify(model, slim, plan, x).reasons()}


def test_a_head_that_only_trains_and_was_not_cut_fails():
    class Head(Body):
        def __init__(self):
            super().__init__()
            self.aux = nn.Conv2d(16, 2, 1)

        def forward(self, x):
            x = self.body(x)
            return (self.h(x), self.aux(x)) if self.training else self.h(x)

    model = Head().eval()
    plan, slim = pruned(model, X[:1], 0.6)
    if "aux.weight" in plan.keep:
        assert trained(model, plan=plan, slim=slim).passed
        del plan.keep["aux.weight"]
    slim.aux = model.aux
    found = trained(model, plan=plan, slim=slim)
    assert found.failed
    assert "slim takes no training step: RuntimeError" in found.detail


def _other_momentum(slim):
    slim.bn1.momentum = 0.3


def _stale_weight(slim):
    slim.fc.weight.data = slim.fc.weight.data.roll(1, 1)


def _detached(slim):
    slim.conv2.forward = lambda x, own=slim.conv2: nn.Conv2d.forward(own, x.detach())


def _evaluates(slim):
    slim.bn1.train = lambda mode=True, own=slim.bn1: nn.Module.train(own, False)


@pytest.mark.parametrize("harm", [_other_momentum, _stale_weight, _detached, _evaluates])
def test_a_slim_network_that_trains_otherwise_is_caught(harm):
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    assert trained(model, plan=plan, slim=slim).passed
    harm(slim)
    assert trained(model, plan=plan, slim=slim).failed


def test_a_wrong_index_shows_in_a_gradient():
    model = Body().eval()
    plan, _ = pruned(model, X[:1], 0.6)
    kept = plan.keep["c2.weight"]["1"]
    lost = next(i for i in itertools.count() if i not in kept)
    plan.keep["c2.weight"]["1"] = sorted([*kept[1:], lost])
    assert trained(model, plan=plan, slim=sp.prune(model, plan), right=False).failed


def test_a_graph_trains_by_what_was_recorded_in_evaluation():
    def in_graph_form(model):
        graph = sp.trace(model.eval(), X[:1], form="graph")
        plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1)
        return trained(model, plan=plan, slim=sp.prune(model, plan))

    found = in_graph_form(Body())
    assert found.passed, found
    found = in_graph_form(TrainingOutput())
    assert found.state == "not compared" or found.passed
    assert found.passed or "slim is a graph" in found.detail


@pytest.mark.parametrize(
    ("most", "batches", "said"),
    [(2**30, [4], ""), (40_000, [2], ""), (20_000, [1], ""), (10, [], "of one sample it would keep more than")],
)
def test_a_step_keeps_no_more_than_there_is_room_for(most, batches, said, monkeypatch):
    monkeypatch.setattr(training_step, "MOST", most)
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed
    assert gate.training.passed is bool(batches)
    assert gate.training.batches == batches
    assert said in gate.training.detail
