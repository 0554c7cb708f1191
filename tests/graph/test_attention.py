"""Which channels of which layers attention multiplies, on modules written in many ways."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from structprune.graph.attention import Heads, attention_of, find_attention
from structprune.graph.layers import find_layers
from structprune.ops import Inputs, capture

HEADS, WIDTH, VALUE = 2, 3, 4


class Attend(nn.Module):
    """Attention of two heads over 5 tokens of 6 channels, with queries and keys of 3 channels and values of 4."""

    def __init__(self, how="plain"):
        super().__init__()
        self.how = how
        self.q, self.k = (nn.Linear(6, HEADS * WIDTH) for _ in range(2))
        self.v, self.proj = nn.Linear(6, HEADS * VALUE), nn.Linear(HEADS * VALUE, 6)
        self.norm, self.table = nn.LayerNorm(WIDTH), nn.Parameter(torch.randn(6))

    def split(self, x):
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def forward(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        if self.how == "normed":
            q = self.norm(q)
        if self.how == "rotated":
            q, k = q.flip(-1) * self.table[:WIDTH], k * self.table[:WIDTH]
        if self.how == "read elsewhere":
            return (q @ k.mT).softmax(-1) @ v + q.sum()
        if self.how == "sdpa":
            return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        if self.how == "linear":  # sums over tokens
            return q @ (k.mT @ v)
        if self.how == "flat":  # as in nn.MultiheadAttention: one axis of batch and heads
            q, k, v = (y.flatten(0, 1) for y in (q * WIDTH**-0.5, k, v))
            y = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).unflatten(0, (-1, HEADS))
            return self.proj(y.transpose(1, 2).flatten(2))
        a = (q / 2 @ k.mT + torch.ones(5, 5)).softmax(-1)
        if self.how == "turned":
            return self.proj((v.mT @ a.mT).flatten(1, 2).mT)
        if self.how == "activated":
            return self.proj(F.relu((a @ v).transpose(1, 2).flatten(2)))
        return self.proj((a @ v).transpose(1, 2).flatten(2))


def attention_in(module, *x):
    recording = capture(module.eval(), Inputs(x, {}))
    return find_attention(recording, find_layers(recording)[0])


def channels(width):
    return np.arange(HEADS * width).reshape(HEADS, width)


@pytest.mark.parametrize("how", ["plain", "sdpa", "flat", "turned"])
def test_each_head_s_channels_are_found(how):
    found = attention_in(Attend(how), torch.randn(2, 5, 6))
    (logits,), (values,) = found.logits, found.values
    sides = [(logits.left, "q", WIDTH), (logits.right, "k", WIDTH), (values.right, "v", VALUE)]
    for side, module, width in (*sides, (values.left, "proj", VALUE)):
        assert isinstance(side, Heads), side
        assert side.layer.module == module
        np.testing.assert_array_equal(side.channels, channels(width))
    assert (logits.width, values.width, logits.centred) == (WIDTH, VALUE, True)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("normed", "layer_norm comes between a layer and the product"),
        ("rotated", "mul comes between a layer and the product"),
        ("read elsewhere", "others read the same channels"),
    ],
)
def test_why_queries_can_not_change_is_said(how, reason):
    assert attention_in(Attend(how), torch.randn(2, 5, 6)).logits[0].left == reason


def test_what_reads_values_through_an_activation_is_none_to_change():
    (values,) = attention_in(Attend("activated"), torch.randn(2, 5, 6)).values
    assert values.left == "relu reads what attention makes of its values"


def test_products_that_sum_over_tokens_are_not_taken_for_logits():
    found = attention_in(Attend("linear"), torch.randn(2, 5, 6))
    sides = [side for product in (*found.logits, *found.values) for side in (product.left, product.right)]
    assert sides
    assert not all(isinstance(side, Heads) for side in sides)


def test_heads_are_known_for_batches_of_other_sizes():
    for how, lead in (("plain", (3, HEADS)), ("flat", (3 * HEADS,))):
        side = attention_in(Attend(how), torch.randn(2, 5, 6)).logits[0].left
        np.testing.assert_array_equal(side.of(lead), [0, 1] * 3)
    assert side.of((3,)) is None


def test_windows_with_position_biases_and_convolutions_for_projections():
    timm = pytest.importorskip("timm")
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224",
        **{"img_size": 28, "patch_size": 2, "in_chans": 1, "embed_dim": 16, "depths": (2,), "num_heads": (2,)},
    )
    found = attention_in(swin, torch.randn(2, 1, 28, 28))
    assert [len(found.logits), len(found.values)] == [2, 2]
    for product in (*found.logits, *found.values):
        assert isinstance(product.left, Heads)
        assert isinstance(product.right, Heads)
        assert product.left.channels.shape == product.right.channels.shape == (2, 8)
    np.testing.assert_array_equal(found.logits[1].right.channels[1], 16 + 8 + np.arange(8))


def test_few_images_tell_the_same_as_many():
    module, x = Attend("flat").eval(), torch.randn(8, 5, 6)
    recording = capture(module, Inputs((x,), {}))
    few = attention_of(module, recording, find_layers(recording)[0])
    np.testing.assert_array_equal(few.logits[0].left.of((16,)), [0, 1] * 8)
    many = attention_in(module, x)
    assert few.logits[0].left.layer == many.logits[0].left.layer
    np.testing.assert_array_equal(few.values[0].left.channels, many.values[0].left.channels)
