"""LayerNorms whose channels are fewer, against lstsq and where nothing is lost."""

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.graph.channel_norms import find_channel_norms
from structprune.ops import Inputs, capture
from tests.example_networks import pruned

DATA = torch.randn(24, 7, 6, generator=torch.Generator().manual_seed(5))


class Normed(nn.Module):
    """A linear layer, a norm of its 12 channels, and a second one that keeps them in a sum."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 12), norm, nn.Linear(12, 5)

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x))))


def randomised(norm):
    torch.manual_seed(0)
    model = Normed(norm).eval()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5)
    return model


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_scale_and_offset_are_lstsq_s(norm):
    model = randomised(norm(12))
    plan, slim = pruned(model, DATA[:1], macs=0.6)
    kept = plan.keep["norm.weight"]["0"]
    assert len(kept) < 12
    done = sp.recover(model, slim, plan, DATA, [{"method": "least_squares", "ridge": 1e-9}]).model
    with torch.no_grad():
        x = slim.norm(slim.first(DATA)).flatten(0, 1).double().numpy()
        y = model.norm(model.first(DATA)).flatten(0, 1)[:, kept].double().numpy()
        factors = done.norm.weight / slim.norm.weight
    intercept = norm is nn.LayerNorm
    for channel in range(len(kept)):
        design = np.stack([x[:, channel], np.ones(len(x))][: 1 + intercept], 1)
        factor, *offset = np.linalg.lstsq(design, y[:, channel], rcond=None)[0]
        assert float(factors[channel]) == pytest.approx(factor, rel=1e-3)
        if intercept:
            expected = slim.norm.bias[channel].item() * factor + offset[0]
            assert done.norm.bias[channel].item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_it_is_exact_where_the_statistics_of_all_channels_are_those_of_the_kept_ones():
    """Each kept channel has a twin that goes: mean and deviation are the same, but for the epsilon."""
    model = randomised(nn.LayerNorm(12, eps=0.0)).double()
    with torch.no_grad():
        model.first.weight[6:], model.first.bias[6:] = model.first.weight[:6] + 0, model.first.bias[:6] + 0
        model.norm.weight[6:], model.norm.bias[6:] = model.norm.weight[:6], model.norm.bias[:6]
    data = DATA.double()
    graph = sp.trace(model, data[:1])
    scores = sp.score(graph, "l1")
    scores.values["first"][:] = np.r_[np.ones(6), np.zeros(6)]
    plan = sp.plan(graph, scores, {"channels": 0.5}, align=1)
    assert plan.keep["norm.weight"]["0"] == [0, 1, 2, 3, 4, 5]
    slim = sp.prune(model, plan)
    done = sp.recover(model, slim, plan, data, ["least_squares"]).model
    torch.testing.assert_close(done.norm.weight, slim.norm.weight)
    with torch.no_grad():
        torch.testing.assert_close(done(data), model(data), rtol=0, atol=1e-3)


def test_norms_that_share_a_scale_or_have_none_are_left_out():
    norm = nn.LayerNorm(6)
    model = nn.Sequential(norm, nn.Linear(6, 6), norm, nn.LayerNorm(6, elementwise_affine=False), nn.LayerNorm(6))
    (own,) = find_channel_norms(capture(model.eval(), Inputs((DATA[:2],), {})))
    assert (own.module, own.weight, own.bias, own.call) == ("4", "4.weight", "4.bias", 3)
