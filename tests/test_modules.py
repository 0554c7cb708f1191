"""Walking and copying modules as torch does it."""

from __future__ import annotations

import copy

import timm
import torch
from torch import nn

from structprune.modules import skeleton_copy, walk


class Sharing(nn.Module):
    """One module under two names, one that is absent, and one that holds its own parent."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.b, self.none = nn.Sequential(self.a[1], nn.ReLU()), None
        self.a.register_module("back", self.b)


def test_walk_is_named_modules():
    for model in (Sharing(), timm.create_model("test_resnet"), timm.create_model("test_vit")):
        assert walk(model) == list(model.named_modules())


def test_a_skeleton_is_what_deepcopy_makes_with_the_parameters_shared():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same"), nn.ConvTranspose2d(4, 4, 2), nn.MultiheadAttention(8, 2), nn.Upsample(2)
    ).eval()
    made, expected = skeleton_copy(model), copy.deepcopy(model)
    for (path, ours), (_, theirs) in zip(made.named_modules(), expected.named_modules(), strict=True):
        assert type(ours) is type(theirs)
        kept = [
            {k: v for k, v in vars(m).items() if k not in ("_modules", "_parameters", "_buffers")}
            for m in (ours, theirs)
        ]
        assert kept[0] == kept[1], path
    assert all(a is b for a, b in zip(made.parameters(), model.parameters(), strict=True))
    assert torch.equal(made[0].weight, expected[0].weight)
