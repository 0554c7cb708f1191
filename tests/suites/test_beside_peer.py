"""What the comparisons with torch-pruning share."""

import math

import pytest
import torch
from torch import nn

from structprune.compare.peer import total_macs
from structprune.suites.beside_peer import THEIRS, machine, prune_by_peer, prune_by_plan, share_kept
from structprune.suites.efficiency import most_efficient
from tests.example_networks import Chain

X = torch.randn(1, 3, 10, 10)


def test_what_is_kept_is_a_geometric_mean():
    slim = Chain()
    slim.conv1 = nn.Conv2d(3, 2, 3)
    assert share_kept(Chain(), slim) == pytest.approx((2 / 8) ** (1 / 3))
    assert share_kept(Chain(), Chain()) == 1
    assert math.isnan(share_kept(nn.ReLU(), nn.ReLU()))


def test_both_tools_come_near_to_half():
    model = Chain().eval()
    slim, plan = prune_by_plan(model, X, 0.5, 1)
    assert plan.macs["slim"] == total_macs(slim, X) <= 0.5 * total_macs(model, X)
    other = prune_by_peer(model, X, 1)
    assert 0.3 < total_macs(other, X) / total_macs(model, X) < 0.7
    assert model.conv1.out_channels == 8


def test_the_machine_names_the_peer():
    assert THEIRS in machine()["packages"]
    assert callable(most_efficient(Chain(), 0.5, 10))
