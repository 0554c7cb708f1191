"""Attention whose code goes by the width of its input: heads and the channels of that input go in proportion."""

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.graph.balance import hindrance, merge, rates, strata
from structprune.suites.equality import assert_slim_equals_masked, random_plan

TOKENS = torch.randn(2, 5, 8)


class Attends(nn.Module):
    def __init__(self, need_weights, **options):
        super().__init__()
        self.need_weights = need_weights
        self.enter, self.leave = nn.Linear(8, 16), nn.Linear(16, 3)
        self.key, self.value = nn.Linear(8, options.get("kdim", 16)), nn.Linear(8, options.get("vdim", 16))
        self.attention = nn.MultiheadAttention(16, 4, **options)

    def forward(self, x):
        query = self.enter(x)
        apart = "kdim" in vars(self.attention) and self.attention.kdim != self.attention.embed_dim
        key, value = (self.key(x), self.value(x)) if apart else (query, query)
        return self.leave(query + self.attention(query, key, value, need_weights=self.need_weights)[0])


OPTIONS = {
    "batch first": {"batch_first": True},
    "batch second": {},
    "apart": {"kdim": 12, "vdim": 10, "batch_first": True},
    "no biases": {"bias": False},
    "more keys": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_multihead_attention_loses_heads_with_the_channels_of_its_input(name, need_weights):
    net = Attends(need_weights, **OPTIONS[name])
    graph = assert_slim_equals_masked(net, TOKENS)
    group = graph.group("enter")
    assert (group.units, group.step) == (16 + 4, 4 + 1)  # four channels for a head of four
    assert not graph.barriers
    slim = sp.prune(net, random_plan(graph, 0)).attention
    assert slim.embed_dim == 4 * slim.num_heads < 16
    assert slim.out_proj.weight.shape[1] == slim.embed_dim


def test_layers_of_a_transformer_lose_heads_together():
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    net = nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3))
    graph = assert_slim_equals_masked(net, TOKENS)
    groups = {group.name: (group.units, group.step) for group in graph.groups}
    assert groups == {"0": (16 + 2 * 4, 4 + 2), "1.layers.0.linear1": (24, 1), "1.layers.1.linear1": (24, 1)}


class OwnAttention(nn.Module):
    """Heads times their width are the input's width, as is common; `scale` is what q is multiplied by."""

    def __init__(self, scale, heads=4):
        super().__init__()
        self.heads, self.scale = heads, scale
        self.enter, self.qkv = nn.Linear(8, 24), nn.Linear(24, 72)
        self.proj, self.leave = nn.Linear(24, 24), nn.Linear(24, 3)

    def forward(self, x):
        x = self.enter(x)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale(q, width // self.heads)) @ k.transpose(-2, -1)
        seen = scores.softmax(-1) @ v
        return self.leave(x + self.proj(seen.transpose(1, 2).reshape(batch, tokens, width)))


SCALES = {
    "of the shape": lambda q, width: q.shape[-1] ** -0.5,
    "of the width": lambda q, width: width**-0.5,
    "fixed": lambda q, width: 0.4,
}


@pytest.mark.parametrize("name", SCALES)
def test_own_attention_keeps_one_factor_and_loses_the_other(name):
    graph = assert_slim_equals_masked(OwnAttention(SCALES[name]), TOKENS)
    group = graph.group("enter")
    if name == "fixed":  # the finer factor: four channels for one of six in every head
        assert (group.units, group.step) == (24 + 6, 4 + 1)
    else:  # which the scale is worked out from: six channels for a head
        assert (group.units, group.step) == (24 + 4, 6 + 1)


def test_a_width_that_the_code_reads_and_that_stays():
    """The input's channels are fixed, and the heads with them."""

    class Fixed(OwnAttention):
        def forward(self, x):
            return super().forward(x)

    net = Fixed(SCALES["of the shape"])
    net.enter = nn.Identity()
    graph = sp.trace(net.eval(), torch.randn(2, 5, 24))
    assert not graph.groups
    assert graph.barriers


# --- balances in proportion ------------------------------------------------------------------------------------


def blocks(*columns):
    """Blocks of one column each."""
    return torch.tensor(columns).numpy()[:, :, None]


def test_a_balance_in_proportion():
    (found,) = strata(blocks([0, 1, 2, 3, 4, 5], [6, 6, 6, 7, 7, 7]))
    assert found == {frozenset(range(6)): 1, frozenset([6, 7]): 3}
    assert rates(found) == [3, 1]


def test_a_class_of_uneven_share_has_no_rate():
    assert strata(blocks([0, 1, 2, 3], [4, 4, 4, 5])) is None


def test_balances_that_share_a_stratum_become_one():
    first = strata(blocks([0, 1, 2, 3, 4, 5], [6, 6, 6, 7, 7, 7]))
    second = strata(blocks([0, 1, 2, 3, 4, 5], [8, 8, 9, 9, 10, 10]))
    (joined,) = merge(merge([], first), second)
    assert dict(zip([len(stratum) for stratum in joined], rates(joined), strict=True)) == {6: 6, 2: 2, 3: 3}
    doubled = [{frozenset(range(6)): 2, frozenset([6, 7]): 3}]
    assert merge(merge([], first), doubled) is None  # three for one, and three for two


def test_of_a_grid_the_factor_that_is_balanced_already_may_go():
    grid = torch.tensor([[[0, 4], [0, 5], [1, 4], [1, 5], [2, 4], [2, 5]]])
    row = torch.tensor([[[10, -1], [11, -1], [12, -1], [13, -1], [14, -1], [15, -1]]])
    both = torch.cat([row, grid]).numpy()
    assert hindrance(both, []).tolist() == [4, 5]  # three can go rather than two
    assert hindrance(both, [{frozenset([4, 5]): 1, frozenset([8, 9]): 1}]).tolist() == [0, 1, 2]
