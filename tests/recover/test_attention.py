"""Attention with fewer channels a head: against lstsq, singular values, and networks that lose nothing."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.calibration import WritableNetwork, batches_of
from structprune.recover.attention import compensate
from structprune.recover.subspaces import best_subspace, product_error
from structprune.verify import expanded

FULL = {"method": "least_squares", "ridge": 1e-9}


class Attention(nn.Module):
    """Two heads of 8 channels over 6 tokens of 12 channels; fused attention takes its scale from the 8."""

    def __init__(self, how="fused", bias=True, norm=False):
        super().__init__()
        self.how, self.num_heads, self.head_dim, self.scale = how, 2, 8, 8**-0.5
        self.qkv, self.proj = nn.Linear(12, 48, bias=bias), nn.Linear(16, 12)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()

    def forward(self, x):
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.norm(q), self.norm(k)
        if self.how == "einsum":
            weights = torch.einsum("bhid,bhjd->bhij", q * self.scale, k).softmax(-1)
            return self.proj(torch.einsum("bhij,bhjd->bihd", weights, v).reshape(batch, tokens, -1))
        fused = self.how == "fused"
        y = F.scaled_dot_product_attention(q, k, v) if fused else (q * self.scale @ k.mT).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))


def tied(model, rank):
    """Makes queries, keys and values of each head have so low a rank: channels are combinations of `rank` others."""
    with torch.no_grad():
        rows = model.qkv.weight.view(3, 2, 8, -1)
        biases = model.qkv.bias.view(3, 2, 8) if model.qkv.bias is not None else None
        for part, head in np.ndindex(3, 2):
            mixture = torch.randn(8 - rank, rank, dtype=rows.dtype)
            rows[part, head, rank:] = mixture @ rows[part, head, :rank]
            if biases is not None:
                biases[part, head, rank:] = mixture @ biases[part, head, :rank]
    return model


def cut(model, x, width, form="module", stream=12):
    """Cuts heads from 8 to `width` channels, and layers of 12 to `stream`."""
    graph = sp.trace(model, x[:1], form=form)
    scores = sp.score(graph, "l1")

    def narrow(choices, scores, load):
        widths = {8: width, 12: stream}
        return {choice.group.name: widths.get(choice.group.units, choice.group.units) for choice in choices}

    plan = sp.plan(graph, scores, {"macs": 1.0}, allocation=narrow, align=1)
    slim = sp.prune(model, plan)
    heads = [tensor for key, tensor in slim.state_dict().items() if key.endswith("qkv.weight")]
    assert {len(weight) for weight in heads} == {6 * width}
    return plan, slim


def outputs(model, x):
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize(
    ("how", "form", "bias"),
    [("plain", "module", True), ("plain", "module", False), ("plain", "graph", True), ("fused", "graph", True)],
)
def test_channels_that_are_combinations_of_others_cost_nothing(how, form, bias):
    """Whichever are kept. In the fused kind this also needs the scale of the dense head."""
    torch.manual_seed(0)
    model = tied(Attention(how, bias).double().eval(), 4)
    x, unseen = torch.randn(24, 6, 12).double(), torch.randn(5, 6, 12).double()
    plan, slim = cut(model, x, 4, form)
    done = sp.recover(model, slim, plan, x, ["means", FULL])
    dense = outputs(model, unseen)
    assert float((outputs(slim, unseen) - dense).abs().max()) > 0.05
    torch.testing.assert_close(outputs(done.model, unseen), dense, rtol=0, atol=1e-5)
    if how == "fused":
        gate = sp.verify(expanded(model, done.model, plan), done.model, plan, x[:2])
        assert gate.passed, gate.reasons()


def test_one_side_is_lstsq_s():
    """Queries that make up for keys that are gone: the least squares of the logits over a Kronecker design."""
    torch.manual_seed(1)
    q, k, kept = torch.randn(30, 5).double(), torch.randn(20, 5).double(), torch.tensor([[0, 2, 3]])
    made = best_subspace([(q.mT @ q)[None]], [(k.mT @ k)[None]], kept, 1e-12, (True, False))
    design = torch.kron(q, k[:, kept[0]].contiguous())  # vec(Q P Sᵀ Kᵀ), row by row
    solution = torch.linalg.lstsq(design, (q @ k.mT).reshape(-1, 1)).solution.reshape(5, 3)
    torch.testing.assert_close(made.left[0], solution, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(made.right[0], torch.eye(5).double()[:, kept[0]])
    other = best_subspace([(k.mT @ k)[None]], [(q.mT @ q)[None]], kept, 1e-12, (False, True))
    torch.testing.assert_close(other.right, made.left)


def test_both_sides_reach_the_best_of_that_rank_and_beat_any_mixture_of_the_kept_channels():
    torch.manual_seed(2)
    q, k, kept = torch.randn(30, 6).double(), torch.randn(20, 6).double(), torch.tensor([[0, 2, 3]])
    qq, kk = (q.mT @ q)[None], (k.mT @ k)[None]
    made = best_subspace([qq], [kk], kept, 1e-12)
    left = float(((q @ made.left[0]) @ (k @ made.right[0]).mT - q @ k.mT).square().sum())
    assert left == pytest.approx(float(torch.linalg.svdvals(q @ k.mT)[3:].square().sum()), rel=1e-6)
    assert made.after == pytest.approx(left / float((q @ k.mT).square().sum()), rel=1e-6)
    design = torch.kron(q[:, kept[0]].contiguous(), k[:, kept[0]].contiguous())
    solved = torch.linalg.lstsq(design, (q @ k.mT).reshape(-1, 1))
    among_kept = float((design @ solved.solution - (q @ k.mT).reshape(-1, 1)).square().sum())
    assert left < among_kept < made.before * float((q @ k.mT).square().sum())


def test_what_does_not_serve_unseen_images_is_not_done():
    """What is large on some images is nothing on the others."""
    first, second = torch.diag(torch.tensor([9.0, 8, 0.1, 0.1])), torch.diag(torch.tensor([0.1, 0.1, 9, 8]))
    folds = [first[None].double(), second[None].double()]
    made = best_subspace(folds, folds, torch.tensor([[0, 2]]), None)
    assert made.ridge == np.inf
    assert made.before == made.after
    eye = torch.eye(4).double()[:, [0, 2]]
    torch.testing.assert_close(made.left[0], eye)
    error = sum(float(product_error(fold, fold, eye[None], eye[None])) for fold in folds)
    assert made.before == pytest.approx(error / sum(float(fold.square().sum()) for fold in folds))


def error(model, slim, x):
    return float((outputs(slim, x) - outputs(model, x)).square().mean() / outputs(model, x).var())


def test_normalised_queries_stay_as_cut_and_a_note_names_them():
    torch.manual_seed(3)
    model, x = Attention("plain", norm=True).eval(), torch.randn(24, 6, 12)
    plan, slim = cut(model, x, 5)
    done = sp.recover(model, slim, plan, x, ["least_squares"])
    assert ": queries and keys stay as cut: layer_norm comes between a layer and the product" in done.notes
    before, after = (net.qkv.weight.view(3, -1) for net in (slim, done.model))
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [True, True, False]
    assert error(model, done.model, x) < error(model, slim, x)


def test_products_by_einsum_stay_as_cut_and_a_note_names_them():
    torch.manual_seed(3)
    model, x = Attention("einsum").eval(), torch.randn(24, 6, 12)
    plan, slim = cut(model, x, 5)
    done = sp.recover(model, slim, plan, x, ["least_squares"])
    for what in ("queries and keys", "values"):
        note = f": {what} stay as cut: einsum multiplies them, in whose place matmul would be followed"
        assert any(line.endswith(note) for line in done.notes)
    assert torch.equal(slim.qkv.weight, done.model.qkv.weight)


class Twice(nn.Module):
    """One layer's result goes into an equation of three terms twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.out(torch.einsum("bi,bi,bi->bi", a, a, b))


def test_other_equations_are_no_attention():
    torch.manual_seed(3)
    model, x = Twice().eval(), torch.randn(24, 12)
    graph = sp.trace(model, x[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, align=1)
    done = sp.recover(model, sp.prune(model, plan), plan, x, ["least_squares"])
    assert done.model.out.in_features == 4
    assert not any("einsum" in line for line in done.notes)


def test_weights_that_were_changed_since_the_cut_stay():
    torch.manual_seed(4)
    model, x = Attention("plain").eval(), torch.randn(24, 6, 12)
    plan, slim = cut(model, x, 4)
    with torch.no_grad():
        slim.qkv.weight.mul_(1.01)
    done = sp.recover(model, slim, plan, x, ["least_squares"])
    assert torch.equal(done.model.qkv.weight, slim.qkv.weight)
    assert any("qkv.weight was changed since the cut" in note for note in done.notes)


def test_scales_leave_attention_as_cut():
    torch.manual_seed(5)
    model, x = Attention("plain").eval(), torch.randn(24, 6, 12)
    plan, slim = cut(model, x, 4)
    done = sp.recover(model, slim, plan, x, [{"method": "least_squares", "weights": "scales"}])
    assert torch.equal(done.model.qkv.weight, slim.qkv.weight)
    full = sp.recover(model, slim, plan, x, ["least_squares"])
    assert full.layers == [2]
    assert error(model, full.model, x) < 0.5 * error(model, done.model, x)


def test_little_memory_takes_more_passes_to_the_same_weights():
    torch.manual_seed(6)
    model, x = nn.Sequential(Attention("plain"), Attention("plain")).eval(), torch.randn(24, 6, 12)
    plan, slim = cut(model, x, 5)
    batches, states = batches_of(x), []
    for memory in (2**30, 2**10):
        dense, mended = (WritableNetwork.of(network, batches[0].inputs) for network in (model, slim))
        made = compensate(dense, mended, plan, batches, memory=memory)
        assert [made.solutions[name].after < made.solutions[name].before for name in made.solutions] == [True] * 4
        states.append(mended.state)
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=1e-3, atol=1e-5)


def test_layers_that_lost_inputs_too_are_fitted_to_the_mixtures():
    """A stream of 12 channels that is cut with the heads: what goes into queries, keys and values is less."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 12), Attention("plain"), nn.Linear(12, 4)).eval()
    x = torch.randn(32, 6, 6)
    plan, slim = cut(model, x, 4, stream=9)
    assert {"0", "1"} <= set(plan.keep["1.qkv.weight"])
    done = sp.recover(model, slim, plan, x, ["means", "least_squares"])
    scales = sp.recover(model, slim, plan, x, ["means", {"method": "least_squares", "weights": "scales"}])
    assert error(model, done.model, x) < 0.7 * error(model, scales.model, x)


class Convolved(nn.Module):
    """Attention by 1×1 convolutions whose projection has a BatchNorm, and a bias or none."""

    def __init__(self, bias):
        super().__init__()
        self.num_heads, self.head_dim = 2, 8
        self.qkv, self.proj = nn.Conv2d(12, 48, 1), nn.Conv2d(16, 12, 1, bias=bias)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x):
        batch, _, height, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, 3, self.num_heads, self.head_dim, -1).transpose(-2, -1).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(-2, -1)
        return self.norm(self.proj(y.reshape(batch, -1, height, width)))


@pytest.mark.parametrize("bias", [True, False])
def test_means_of_values_go_to_the_batchnorm_where_there_is_no_bias(bias):
    torch.manual_seed(4)
    model, x = Convolved(bias).eval(), torch.randn(64, 12, 3, 3)
    with torch.no_grad():
        model.qkv.bias.copy_(3 * torch.randn(48))
        model.norm.running_mean.normal_()
    plan, slim = cut(model, x, 4, form="graph")
    dense, here = (WritableNetwork.of(network, batches_of(x)[0].inputs) for network in (model, slim))
    compensate(dense, here, plan, batches_of(x), ridge=1e-9)
    with torch.no_grad():
        gap = here.result(x) - model(x)
        as_cut = slim(x) - model(x)
    assert float(gap.mean((0, 2, 3)).abs().max()) < 0.1 * float(as_cut.mean((0, 2, 3)).abs().max())
