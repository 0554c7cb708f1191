"""The gate passes what is right, and catches surgery that is broken on purpose."""

import copy
import itertools
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import ModelError
from structprune.verify import Comparison, expanded, masked
from tests.example_networks import Chain, Tied, pruned, randomise

X = torch.randn(4, 3, 10, 10)


class Branch(nn.Module):
    """A residual branch whose last BatchNorm starts at zero, as timm's do: its filters have no effect yet."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.bn, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.bn(self.b(F.relu(self.a(x)))))


def test_right_surgery_passes_with_small_differences():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed
    assert gate.reasons() == []
    assert gate.masked_vs_slim.max_rel < 1e-5
    assert gate.float64.max_rel < 1e-13
    assert gate.reload.max_abs == 0
    assert gate.onnx.max_rel < 1e-5
    assert gate.masked_vs_slim.batches == gate.onnx.batches == [1, 4]
    assert gate.record().passed is True


def test_one_sample_is_also_run_as_two():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    assert sp.verify(model, slim, plan, X[:1]).masked_vs_slim.batches == [1, 2]


class AsksOfMany(nn.Module):
    """Reads a value, but only of more than two samples."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)

    def forward(self, x):
        y = self.a(x).relu()
        if x.shape[0] > 2 and float(x.max()) > 99:
            y = 2 * y
        return self.b(y).mean((2, 3))


@pytest.mark.parametrize(("samples", "compared"), [(1, [1, 2]), (2, [2]), (4, [4])])
def test_a_batch_that_a_graph_form_refuses_by_name_is_left_out_and_said(samples, compared):
    model = randomise(AsksOfMany())
    plan, slim = pruned(model, X[:samples], form="graph")
    gate = sp.verify(model, slim, plan, X[:samples])
    assert gate.passed
    assert gate.masked_vs_slim.batches == gate.float64.batches == gate.onnx.batches == compared
    assert ("batch 1 not compared: this slim network" in gate.float64.detail) is (compared != [1, 2])
    found = [
        said for said in gate.record().to_data()["not_compared"] if said.startswith("batch 1 not compared: this slim")
    ]
    assert len(found) == (compared != [1, 2])


def test_inputs_as_given_are_never_left_out():
    model = randomise(AsksOfMany())
    plan, slim = pruned(model, X[:2], form="graph")
    gate = sp.verify(model, slim, plan, X)
    assert not gate.passed
    assert "OtherSizeError" in " ".join(gate.reasons())


def test_networks_are_compared_in_full_float32():
    seen = []

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
            return self.b(torch.relu(self.a(x)))

    model, x = Looks(), torch.randn(2, 3, 8, 8)
    graph = sp.trace(model, x[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    slim = sp.prune(model, plan)
    torch.set_float32_matmul_precision("high")
    try:
        seen.clear()
        assert sp.verify(model, slim, plan, x).passed
        assert set(seen) == {(False, "highest")}
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, "high")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_masked_reference_equals_zeroing_by_hand():
    model = randomise(Chain())
    plan, _ = pruned(model, X[:1])
    first, second = (plan.groups[name]["kept"] for name in ("conv1", "conv2"))
    with torch.no_grad():
        y = F.relu(model.bn1(model.conv1(X)))
        y[:, [i for i in range(8) if i not in first]] = 0  # where they enter conv2
        y = model.conv2(y)
        y[:, [i for i in range(6) if i not in second]] = 0  # where they enter fc
        by_hand = model.fc(y.mean((2, 3)))
        torch.testing.assert_close(masked(model, plan)(X), by_hand)


def _swap_filters(slim):
    slim.conv1.weight.data = slim.conv1.weight.data.flip(0)


def _wrong_inputs(slim):
    slim.conv2.weight.data = slim.conv2.weight.data.roll(1, 1)


def _forget_bias(slim):
    slim.conv2.bias.data[0] += 0.01


def _stale_statistics(slim):
    slim.bn1.running_mean.roll(1, 0)
    slim.bn1.running_mean = slim.bn1.running_mean.roll(1, 0)


def _too_narrow(slim):
    slim.fc.weight.data = slim.fc.weight.data[:, :-1]


@pytest.mark.parametrize("harm", [_swap_filters, _wrong_inputs, _forget_bias, _stale_statistics, _too_narrow])
def test_broken_surgery_is_caught(harm):
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    harm(slim)
    gate = sp.verify(model, slim, plan, X)
    assert not gate.passed
    assert any(reason.startswith("masked_vs_slim") for reason in gate.reasons())


@pytest.mark.parametrize(("key", "dim"), [("conv1.weight", 0), ("conv2.weight", 1), ("bn1.bias", 0), ("fc.weight", 1)])
def test_a_plan_that_keeps_the_wrong_index_is_caught(key, dim):
    model = randomise(Chain())
    plan, _ = pruned(model, X[:1])
    kept = plan.keep[key][str(dim)]
    lost = next(i for i in itertools.count() if i not in kept)
    plan.keep[key][str(dim)] = sorted([*kept[1:], lost])
    gate = sp.verify(model, sp.prune(model, plan), plan, X)
    assert not gate.passed


def test_random_weights_catch_what_a_dead_branch_hides():
    model = Branch().eval()
    plan, _ = pruned(model, X[:1])
    kept = plan.keep["b.weight"]["1"]
    lost = next(i for i in itertools.count() if i not in kept)
    plan.keep["b.weight"]["1"] = sorted([*kept[1:], lost])
    gate = sp.verify(model, sp.prune(model, plan), plan, X)
    assert gate.masked_vs_slim.passed
    assert gate.float64.passed
    assert not gate.random_weights.passed
    assert not gate.passed


def test_a_damaged_file_is_caught(tmp_path):
    from safetensors.torch import load_file, save_file

    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    sp.save(slim, plan, tmp_path)
    weights = load_file(tmp_path / "slim.safetensors")
    weights["fc.bias"][0] += 1e-3
    save_file(weights, tmp_path / "slim.safetensors")
    gate = sp.verify(model, slim, plan, X, folder=tmp_path)
    assert gate.masked_vs_slim.passed
    (reason,) = gate.reasons()
    assert re.match(r"reload: StoreError: .*slim\.safetensors is damaged", reason)
    slim_of_another_run = copy.deepcopy(slim)
    with torch.no_grad():
        slim_of_another_run.fc.bias[0] += 1e-3
    sp.save(slim_of_another_run, plan, tmp_path)
    gate = sp.verify(model, slim, plan, X, folder=tmp_path)
    assert gate.reasons() == ["reload: fc.bias is not the tensor that was saved"]


def test_an_onnx_file_of_another_network_is_caught(tmp_path):
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    sp.export_onnx(model, X, tmp_path / "dense.onnx")
    gate = sp.verify(model, slim, plan, X, onnx=tmp_path / "dense.onnx")
    assert [reason.partition(":")[0] for reason in gate.reasons()] == ["onnx"]


def test_a_slim_network_that_was_trained_equals_its_expansion():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    with torch.no_grad():
        for tensor in slim.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.1)
    assert not sp.verify(model, slim, plan, X).passed
    gate = sp.verify(expanded(model, slim, plan), slim, plan, X)
    assert gate.passed, gate.reasons()


def test_expansion_is_zero_where_channels_went():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    whole = expanded(model, slim, plan)
    gone = np.delete(np.arange(8), plan.groups["conv1"]["kept"])
    assert not whole.conv1.weight[gone].any()
    assert not whole.conv2.weight[:, gone].any()
    torch.testing.assert_close(whole(X), masked(model, plan)(X))


def test_equal_infinities_are_equal_and_others_are_not():
    model = randomise(Chain())
    plan, slim = pruned(model, X[:1])
    for network in (model, slim):
        network.fc.bias.data[0] = torch.inf
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed, gate.reasons()
    assert "infinite in some places, the same in both" in gate.float64.detail
    slim.fc.bias.data[0] = -torch.inf
    assert "not finite in 1 places at batch 1, and not the same there" in sp.verify(model, slim, plan, X).reasons()[0]


def _verified(model, inputs=X, macs=0.5, **options):
    plan, slim = pruned(model.eval(), inputs[:1], macs, **options)
    return plan, slim, sp.verify(model, slim, plan, inputs)


def test_outputs_that_hide_tensors_are_refused():
    class Box:
        def __init__(self, tensors):
            self.tensors = tensors

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x):
            h = self.a(x).relu()
            return Box(self.b(h)), self.c(h)

    with pytest.raises(ModelError, match="forward returns a Box, which can't be looked into"):
        sp.trace(Net(), X)


class Rotary(nn.Module):
    """Converts to float32 within, and multiplies queries with keys that have biases and are scaled by position."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.rand(5, 8) + 0.5)

    def forward(self, x):
        q, k = self.q(x).float() * self.scale, self.k(x).float() * self.scale
        return self.out((q @ k.transpose(1, 2)).sigmoid().to(x.dtype) @ self.v(x))


def test_a_contraction_of_two_activations_and_a_conversion_within():
    torch.manual_seed(0)
    model, x = Rotary().eval(), torch.randn(2, 5, 6)
    plan, slim = pruned(model, x)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert gate.random_weights.max_rel < 1e-12  # no rounding to float32
    assert any(entry["op"] == "matmul" and set(entry["keep"]) == {"0", "1"} for entry in plan.statistics)
    assert all(group.exact for group in sp.trace(model, x).groups)


class Contracting(nn.Module):
    """A vector as the weights of a sum, and two letters contracted at once."""

    def __init__(self):
        super().__init__()
        self.a, self.q, self.k = nn.Linear(6, 8), nn.Linear(6, 12), nn.Linear(6, 12)
        self.w, self.heads = nn.Parameter(torch.randn(8)), 3

    def forward(self, x):
        q, k = (layer(x).reshape(*x.shape[:2], self.heads, -1) for layer in (self.q, self.k))
        return torch.sigmoid(self.a(x)) @ self.w, torch.einsum("bnhd,bmhd->bnm", q, k)


def test_contractions_with_a_vector_and_of_two_letters():
    torch.manual_seed(0)
    model, x = Contracting().eval(), torch.randn(2, 5, 6)
    for seed in range(3):
        graph, rng = sp.trace(model, x), np.random.default_rng(seed)
        scores = sp.score(graph, lambda group, rng=rng: torch.from_numpy(rng.random(group.units)))
        plan = sp.plan(graph, scores, {"params": 0.4}, align=1)
        gate = sp.verify(model, sp.prune(model, plan), plan, x)
        assert gate.passed, gate.reasons()


class UnevenNorm(nn.Module):
    """One half of what a GroupNorm sees is an output too, and must stay."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.GroupNorm(2, 16), nn.Linear(16, 4)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.out(self.norm(torch.cat([a, b], 1)).relu()), b


def test_groups_of_a_norm_stay_equal_where_one_can_t_shrink():
    torch.manual_seed(0)
    model, x = UnevenNorm().eval(), torch.randn(4, 6)
    graph = sp.trace(model, x)
    assert not graph.groups
    assert any("must lose as many channels" in barrier.reason for barrier in graph.barriers)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 1.0}, align=1)
    plan.keep = {
        "a.weight": {"0": [0, 1, 2]}, "a.bias": {"0": [0, 1, 2]}, "out.weight": {"1": [0, 1, 2, *range(8, 15)]},
        "norm.weight": {"0": [0, 1, 2, *range(8, 15)]}, "norm.bias": {"0": [0, 1, 2, *range(8, 15)]},
    }  # fmt: skip
    plan.statistics = [{"op": "group_norm", "call": 0, "module": "norm", "reduces": False,
                        "keep": {"0": {"1": [0, 1, 2, *range(8, 15)]}}}]  # fmt: skip
    with pytest.raises(RuntimeError, match="unequal numbers of channels"):
        masked(model, plan)(x)


class Size(NamedTuple):
    h: int
    w: int


class Laid(nn.Module):
    """Views after norms of permuted tensors, an attribute that is a named tuple, and a norm by a computed number."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 1), nn.LayerNorm(16), nn.Linear(16, 4)
        self.size = Size(4, 4)

    def forward(self, x):
        x = self.norm(self.a(x).permute(0, 2, 3, 1)).view(x.shape[0], self.size.h * self.size.w, -1)
        return self.b(x)


def test_layout_and_named_tuples():
    _, _, gate = _verified(Laid(), torch.randn(4, 3, 4, 4), macs=0.6)
    assert gate.passed, gate.reasons()


def test_a_number_of_groups_worked_out_from_a_width_is_a_barrier():
    class Eights(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 4, 1)

        def forward(self, x):
            x = self.a(x)
            return self.b(F.group_norm(x, x.shape[1] // 8))

    graph = sp.trace(Eights(), X)
    assert not graph.groups
    assert "works out from a width" in graph.barriers[0].reason


def test_imaginary_parts_are_compared():
    a, b = torch.complex(torch.zeros(3), torch.ones(3)), torch.complex(torch.zeros(3), 2 * torch.ones(3))
    comparison = Comparison(tolerance=1e-4)
    comparison.add([a], [b], 1)
    assert not comparison.passed


class Divided(nn.Module):
    """Divides by a number worked out from the width, and, at will, runs in float32 only."""

    def __init__(self, by_width, only_float32):
        super().__init__()
        self.a, self.b, self.s = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(3, 8, 1)
        self.bn = nn.BatchNorm2d(8)
        nn.init.zeros_(self.bn.weight)
        self.by_width, self.only_float32 = by_width, only_float32

    def forward(self, x):
        if self.only_float32 and x.dtype != torch.float32:
            raise TypeError("float32, please")
        h = self.a(x).relu()
        h = h / h.shape[1] ** 0.5 if self.by_width else h
        return self.s(x) + self.bn(self.b(h))


def test_a_number_worked_out_from_a_width_is_a_barrier():
    assert [g.name for g in sp.trace(Divided(False, False), X).groups] == ["a"]
    graph = sp.trace(Divided(True, False), X)
    assert not graph.groups
    assert "a number that the model's code works out from a width" in graph.barriers[0].reason


def test_a_model_for_float32_only_is_still_compared_with_random_weights():
    model = Divided(False, True)
    plan, _, gate = _verified(model)
    assert gate.passed, gate.reasons()
    assert "float32" in gate.random_weights.detail
    kept = plan.keep["b.weight"]["1"]
    lost = next(i for i in itertools.count() if i not in kept)
    plan.keep["b.weight"]["1"] = sorted([*kept[1:], lost])
    gate = sp.verify(model, sp.prune(model, plan), plan, X)
    assert gate.masked_vs_slim.passed  # hidden by the BatchNorm whose scale is zero
    assert not gate.random_weights.passed


def test_vectors_may_be_divisors():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
            self.register_buffer("variance", torch.rand(16) + 0.5)
            self.temperature = nn.Parameter(torch.ones(16, 1, 1))

        def forward(self, x):
            h = F.batch_norm(self.a(x), torch.zeros_like(self.variance), self.variance, eps=1e-9)
            return self.b(h * self.temperature)

    _, _, gate = _verified(Frozen())
    assert gate.passed, gate.reasons()


def test_weights_with_a_domain_are_disturbed_and_not_drawn():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.t = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.b(self.a(x)) / self.t.sqrt()[:, None, None]

    _, _, gate = _verified(Root())
    assert gate.passed, gate.reasons()


def test_buffers_that_forward_writes_to_are_left_alone():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
            self.register_buffer("n", torch.zeros(()))

        def forward(self, x):
            self.n += 1
            return self.b(self.a(x))

    model = Counting()
    _, slim, gate = _verified(model)
    assert gate.passed, gate.reasons()
    assert float(model.n) == float(slim.n) == 0


def test_no_layer_is_emptied_where_layers_make_parts_of_a_group():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 12, 1), nn.Conv2d(3, 16, 1)
            self.d = nn.Conv2d(16, 8, 1)

        def forward(self, x):
            return self.d((torch.cat([self.a(x), self.b(x)], 1) + self.c(x)).relu())

    model = Parts()
    model.a.weight.data.mul_(1e-3)
    model.c.weight.data[:4].mul_(1e-3)
    plan, slim, gate = _verified(model, min_channels=2)
    assert gate.passed, gate.reasons()
    assert len(plan.keep["a.weight"]["0"]) == 2
    assert slim.a.out_channels == 2


def test_parameters_held_in_attributes_too_go_along():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.scale = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
            self.all = [self.scale]

        def forward(self, x):
            return self.b(self.a(x) * self.all[0])

    model = Listed()
    plan, slim = pruned(model.eval(), X[:1], 1.0)  # read through the list, the scale is a constant: nothing can go
    assert slim.all[0] is slim.scale
    assert slim.scale is not model.scale
    assert model.all[0] is model.scale
    assert sp.verify(model, slim, plan, X).masked_vs_slim.passed


def test_convolution_over_the_channel_axis_is_a_barrier_and_batch_statistics_change():
    class Along(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c, self.f = nn.Conv2d(3, 8, 1), nn.Conv1d(10, 6, 3, stride=8), nn.Linear(6, 2)

        def forward(self, x):
            return self.f(self.c(self.a(x).relu().mean(2).transpose(1, 2)).flatten(1))

    graph = sp.trace(Along(), X)
    assert "a" not in [g.name for g in graph.groups]
    assert "convolves along an axis that carries channels" in graph.barriers[0].reason

    class Batch(nn.Module):
        def __init__(self):
            super().__init__()
            self.l1, self.bn, self.l2 = nn.Linear(10, 8), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(8, 2)

        def forward(self, x):
            return self.l2(self.bn(self.l1(x).relu()))

    (group,) = sp.trace(Batch(), torch.randn(2, 5, 10)).groups
    assert not group.exact


def test_tied_convolutions_agree_on_their_widths():
    _, slim, gate = _verified(Tied())
    assert gate.passed, gate.reasons()
    assert slim.c.in_channels == slim.b.in_channels == slim.b.weight.shape[1]


class _Finds(nn.Module):
    """Two layers; of the rows of the second's output those over a threshold, or all with an empty one beside."""

    def __init__(self, beside: bool):
        super().__init__()
        self.a, self.b, self.beside = nn.Linear(6, 16), nn.Linear(16, 4), beside

    def forward(self, x):
        y = self.b(self.a(x).relu())
        return (y, y.new_zeros(0, 4)) if self.beside else y[y[:, 0] > 1e6]


def _of(model, x):
    graph = sp.trace(model, x)
    return sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)


def test_empty_outputs_alone_prove_nothing():
    model, x = _Finds(beside=False).eval(), torch.randn(3, 6)
    plan = _of(model, x) if sp.trace(model, x).groups else None
    if plan is None:
        pytest.skip("what values choose keeps every channel")
    gate = sp.verify(model, sp.prune(model, plan), plan, x)
    assert not gate.passed
    assert "every output is empty" in gate.float64.detail


def test_an_empty_output_makes_no_network_random(tmp_path):
    model, x = _Finds(beside=True).eval(), torch.randn(3, 6)
    plan = _of(model, x)
    slim = sp.prune(model, plan)
    assert sp.verify(model, slim, plan, x).passed
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    assert not sp.verify(model, slim, plan, x, onnx=tmp_path / "junk.onnx").passed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_file_that_is_no_network_fails_in_any_dtype(dtype, tmp_path):
    model, x = (
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype).eval(),
        torch.randn(2, 6).to(dtype),
    )
    plan = _of(model, x)
    slim = sp.prune(model, plan)
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for file in ("junk.onnx", "none.onnx"):
        assert sp.verify(model, slim, plan, x, onnx=tmp_path / file).onnx.failed


def test_outputs_that_show_nothing_of_the_cut_prove_nothing():
    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(), nn.Conv2d(16, 4, 1, bias=False)).eval()
    plan, slim = pruned(model, torch.randn(1, 3, 8, 8))
    with torch.no_grad():
        slim[0].weight.copy_(slim[0].weight.flip(0))  # not what the plan says
    found = sp.verify(model, slim, plan, torch.zeros(2, 3, 8, 8), trained=True)
    assert not found.passed
    assert (
        sp.verify(model, sp.prune(model, plan), plan, torch.zeros(2, 3, 8, 8))
        .reasons()[0]
        .startswith("float64: not compared: the outputs are the dense network's")
    )
    assert sp.verify(model, sp.prune(model, plan), plan, torch.randn(2, 3, 8, 8)).passed
    with torch.no_grad():
        model[2].weight.zero_()  # a head before training: other weights tell
    assert sp.verify(model, sp.prune(model, plan), plan, torch.randn(2, 3, 8, 8)).passed


def test_a_folder_with_another_plan_is_caught(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    plan, slim = pruned(model, x)
    kept = plan.keep["0.weight"]["0"]
    lost = next(i for i in range(16) if i not in kept)
    text = plan.to_json().replace(str(kept)[1:-1], str(sorted([*kept[1:], lost]))[1:-1])
    other = sp.Plan.from_json(text)
    assert other.keep != plan.keep
    sp.save(slim, other, tmp_path)
    gate = sp.verify(model, slim, plan, x, folder=tmp_path)
    assert [reason for reason in gate.reasons() if "is another plan" in reason] == gate.reasons()
    sp.save(slim, plan, tmp_path)
    assert sp.verify(model, slim, plan, x, folder=tmp_path).passed


class Anchored(nn.Module):
    """Returns what it holds as well, which is a buffer of its graph form and is cast with it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.anchors = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1), torch.linspace(0, 1, 7)

    def forward(self, x):
        return self.b(self.a(x).relu()), self.anchors


def test_constants_are_outputs_of_their_own_dtype():
    x = torch.randn(2, 3, 8, 8)
    model = Anchored().eval()
    plan, slim = pruned(model, x, form="graph")
    assert sp.verify(model, slim, plan, x).passed


class Doubled(nn.Sequential):
    def forward(self, x):
        return super().forward(x).double()


def test_outputs_of_another_dtype_are_caught():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    plan, slim = pruned(model, x)
    slim.__class__ = Doubled
    (reason, *_) = sp.verify(model, slim, plan, x).reasons()
    assert reason == "masked_vs_slim: outputs are float64, and the dense network's float32"
