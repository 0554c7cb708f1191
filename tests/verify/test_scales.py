"""A wrong cut is caught and a right one passes, whatever stands beside the outputs that it moves."""

import itertools

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.verify import Comparison, batches_of, compare_finest, masked
from structprune.verify.running import Inputs
from tests.example_networks import pruned

X = torch.randn(2, 3, 12, 12)
BESIDE = {
    "a column of 1e9": lambda x, y: torch.cat([x * 1e9, y], 1),
    "a row of 1e9": lambda x, y: torch.cat([y, y[:, :, :1] * 1e9], 2),
    "an output of 1e12": lambda x, y: {"a": x * 1e12, "b": y},
    "flat": lambda x, y: torch.cat([(x * 1e9).flatten(1), y.flatten(1)], 1),
    "large, and y is tiny": lambda x, y: torch.cat([x, y * 1e-9], 1),
    "every order": lambda x, y: y * torch.logspace(-12, 12, 5)[:, None, None],
    "a sample of 1e12": lambda x, y: y * torch.tensor([1e12, 1.0])[: len(y), None, None, None],
    "zeros but for rounding": lambda x, y: (y - y.mean((2, 3), keepdim=True), (y - y.mean(1, keepdim=True)).sum(1)),
    "saturation": lambda x, y: (y * 50).softmax(1),
    "nothing: one number": lambda x, y: y.mean(),
    "infinity": lambda x, y: torch.cat([y, torch.full_like(y, -torch.inf)], 1),
    "NaN": lambda x, y: torch.cat([y, torch.full_like(y, torch.nan)], 1),
}


class Net(nn.Module):
    def __init__(self, beside):
        super().__init__()
        torch.manual_seed(1)
        self.c, self.h, self.beside = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 5, 3, padding=1), beside

    def forward(self, x):
        return self.beside(x, self.h(torch.sigmoid(self.c(x))))


def compared(model, plan, dtype):
    comparison, slim = Comparison.of(dtype), sp.prune(model, plan)
    batches = batches_of(model, Inputs.of(X))
    compare_finest(comparison, masked(model, plan), slim, batches, order=lambda _: [dtype], dense=model)
    return comparison


@pytest.mark.parametrize("name", BESIDE)
def test_a_cut_is_judged_by_its_own_scale(name):
    model = Net(BESIDE[name]).eval()
    plan, _ = pruned(model, X[:1], 0.6)
    for dtype in (torch.float32, torch.float64):
        found = compared(model, plan, dtype)
        assert found.passed, found
    kept = plan.keep["h.weight"]["1"]
    lost = next(i for i in itertools.count() if i not in kept)
    plan.keep["h.weight"]["1"] = sorted([*kept[1:], lost])
    for dtype in (torch.float32, torch.float64):
        assert compared(model, plan, dtype).failed
