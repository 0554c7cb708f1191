"""What a network is besides its widths stays: types, layouts, modes, dropout, statistics, ties, scales, constants."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.verify import masked
from tests.example_networks import Chain, pruned, randomise

X = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Regularised(nn.Module):
    """Dropout of three kinds, and a norm with constants of its own."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.channels = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12, 0.01, 0.3), nn.Dropout2d(0.5)
        self.last, self.pixels, self.fc = nn.Conv2d(12, 8, 1), nn.Dropout(0.5), nn.Linear(8, 5)
        self.layer_norm = nn.LayerNorm(8, eps=0.5, bias=False)

    def forward(self, x):
        x = self.pixels(self.last(self.channels(F.relu(self.norm(self.conv(x))))))
        return F.dropout(self.fc(self.layer_norm(x.mean((2, 3)))), 0.5, self.training)


def _vit(**options):
    import timm

    sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **sizes, **options).eval()


# --- types and layouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept(dtype):
    model = randomise(Chain()).to(dtype)
    plan, slim = pruned(model, X[:1].to(dtype))
    types = {key: tensor.dtype for key, tensor in model.state_dict().items()}
    assert {key: tensor.dtype for key, tensor in slim.state_dict().items()} == types
    assert slim.conv1.weight.dtype == dtype
    made = slim(X.to(dtype))
    assert made.dtype == dtype
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(made, masked(model, plan)(X.to(dtype)), atol=tolerance, rtol=tolerance)
    made.sum().backward()
    assert slim.conv1.weight.grad.dtype == dtype


def test_types_may_be_mixed_and_autocast_works():
    model = randomise(Chain())
    model.fc.to(torch.bfloat16)
    model.fc.register_forward_pre_hook(lambda _, args: (args[0].to(torch.bfloat16),))
    _, slim = pruned(model, X[:1])
    assert (slim.conv1.weight.dtype, slim.fc.weight.dtype) == (torch.float32, torch.bfloat16)
    assert slim(X).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert slim(X).dtype == torch.bfloat16


def test_the_plan_does_not_depend_on_the_type():
    model = randomise(Chain())
    model.load_state_dict(
        {key: t.bfloat16().float() for key, t in model.state_dict().items()}
    )  # the same values in both
    plans = [pruned(copy.deepcopy(model).to(dtype), X[:1].to(dtype))[0] for dtype in (torch.float32, torch.bfloat16)]
    assert plans[0].keep == plans[1].keep


def test_channels_last_inputs_run_and_are_traced():
    model, x = randomise(Chain()), X.to(memory_format=torch.channels_last)
    plan, slim = pruned(model, x[:1])
    assert plan.keep == pruned(model, X[:1])[0].keep
    torch.testing.assert_close(slim(x), slim(X))
    assert slim.bn1(slim.conv1(x)).is_contiguous(memory_format=torch.channels_last)
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()


@pytest.mark.xfail(strict=True, reason="surgery.prune._slice gives weights in the default layout")
def test_channels_last_weights_stay_so():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)).to(memory_format=torch.channels_last)
    _, slim = pruned(model, X[:1])
    for layer in (slim[0], slim[2]):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert not layer.weight.is_contiguous()


# --- modes, dropout and statistics ----------------------------------------------------------------------------------


def test_each_module_keeps_its_mode():
    model = Regularised().train()
    model.norm.eval()
    model.pixels.eval()
    _, slim = pruned(model, X)
    for network in (model, slim):
        modes = {name: module.training for name, module in network.named_modules()}
        assert {name for name, training in modes.items() if not training} == {"norm", "pixels"}


def test_dropout_drops_in_training_only():
    _, slim = pruned(Regularised().eval(), X[:1])
    assert torch.equal(slim(X), slim(X))
    assert (slim.channels.p, slim.pixels.p) == (0.5, 0.5)
    slim.train()
    slim.norm.eval()
    assert not torch.equal(slim(X), slim(X))
    dropped = slim.channels(slim.conv(X))
    empty = (dropped == 0).all((2, 3))
    assert 0 < empty.float().mean() < 1  # whole channels of the slim width
    assert empty.shape == (4, slim.conv.out_channels)


def test_drop_path_drops_in_training_only():
    model = _vit(drop_path_rate=0.6)
    _, slim = pruned(model, torch.randn(1, 3, 32, 32))
    x = torch.randn(16, 3, 32, 32)
    paths = [slim.blocks[1].drop_path1, slim.blocks[1].drop_path2]
    assert [path.drop_prob for path in paths] == pytest.approx([0.6, 0.6])
    assert torch.equal(slim(x), slim(x))
    slim.train()
    assert not torch.equal(slim(x), slim(x))
    tokens = torch.ones(200, 3, 4)
    kept = paths[0](tokens).flatten(1).any(1)
    assert 0.2 < kept.float().mean() < 0.6  # whole samples, four in ten


def test_batch_norm_updates_statistics_of_the_slim_width():
    model = Regularised().eval()
    plan, slim = pruned(model, X[:1])
    kept = plan.groups["conv"]["kept"]
    before = slim.norm.running_mean.clone()
    assert torch.equal(before, model.norm.running_mean[kept])
    slim.train()
    slim(X)
    with torch.no_grad():
        seen = slim.conv(X).transpose(0, 1).flatten(1)
    torch.testing.assert_close(slim.norm.running_mean, 0.7 * before + 0.3 * seen.mean(1))
    assert slim.norm.running_var.shape == (len(kept),)
    assert int(slim.norm.num_batches_tracked) == 1
    assert int(model.norm.num_batches_tracked) == 0


def test_norms_keep_their_constants():
    plan, slim = pruned(Regularised().eval(), X[:1])
    assert (slim.norm.eps, slim.norm.momentum) == (0.01, 0.3)
    assert (slim.layer_norm.eps, slim.layer_norm.bias) == (0.5, None)
    assert slim.layer_norm.normalized_shape == (len(plan.groups["last"]["kept"]),)


# --- what is shared, indexed, frozen --------------------------------------------------------------------------------


def test_a_module_called_twice_and_weights_under_two_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.twice, self.act = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.PReLU(8)
            self.again, self.head = self.twice, nn.Conv2d(8, 8, 3, padding=1)
            self.head.weight = self.twice.weight

        def forward(self, x):
            x = self.act(self.twice(self.act(self.enter(x))))
            return self.head(self.act(self.again(x))).mean(1)

    model = Net()
    plan, slim = pruned(model, X[:1])
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed, gate.reasons()
    assert slim.again is slim.twice
    assert slim.head.weight is slim.twice.weight
    assert slim.twice.weight.shape[:2] == (len(slim.act.weight),) * 2
    assert len(list(slim.parameters())) == len(list(model.parameters()))


def test_buffers_by_channel_follow_whatever_their_type():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.register_buffer("shift", torch.arange(8.0).view(1, 8, 1, 1))
            self.register_buffer("on", torch.arange(8) % 3 > 0, persistent=False)
            self.register_buffer("power", torch.arange(8) % 2 + 1)
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

        def forward(self, x):
            x = (self.conv(x) + self.shift) * self.on[:, None, None]
            return self.head(x ** self.power[:, None, None])

    model = Net()
    plan, slim = pruned(model, X[:1])
    kept = plan.groups["conv"]["kept"]
    for name in ("on", "power"):
        assert torch.equal(getattr(slim, name), getattr(model, name)[kept])
    assert slim.shift.flatten().tolist() == [float(i) for i in kept]
    assert (slim.on.dtype, slim.power.dtype) == (torch.bool, torch.long)
    assert "on" not in slim.state_dict()
    assert list(slim.state_dict()) == list(model.state_dict())
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed, gate.reasons()


def test_frozen_parameters_stay_frozen():
    model = randomise(Chain())
    for parameter in (model.conv1.weight, model.bn1.bias):
        parameter.requires_grad_(False)
    _, slim = pruned(model, X[:1])
    assert {key for key, p in slim.named_parameters() if not p.requires_grad} == {"conv1.weight", "bn1.bias"}
    before = slim.conv1.weight.clone()
    slim(X).square().mean().backward()
    torch.optim.SGD(slim.parameters(), lr=0.1, weight_decay=0.1).step()
    assert torch.equal(slim.conv1.weight, before)
    assert slim.conv2.weight.grad is not None


def test_attention_keeps_its_scale():
    model, x = _vit(), torch.randn(2, 3, 32, 32)
    plan, slim = pruned(model, x[:1])
    for dense, attention in zip(model.blocks, slim.blocks, strict=True):
        assert dense.attn.head_dim == 16
        assert attention.attn.head_dim < 16
        assert attention.attn.scale == dense.attn.scale == 16**-0.5
    torch.testing.assert_close(slim(x), masked(model, plan)(x), atol=1e-6, rtol=1e-5)
    assert model.blocks[0].attn.fused_attn == _vit().blocks[0].attn.fused_attn
    wrong = copy.deepcopy(slim)
    for block in wrong.blocks:
        block.attn.scale = block.attn.head_dim**-0.5
    gate = sp.verify(model, wrong, plan, x)
    assert not gate.masked_vs_slim.passed


# --- on a GPU -------------------------------------------------------------------------------------------------------


@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_model_on_a_gpu_stays_there(dtype):
    model, x = randomise(Chain()).to("cuda", dtype), X.to("cuda", dtype)
    plan, slim = pruned(model, x[:1])
    assert {(t.device.type, t.dtype) for t in slim.parameters()} == {("cuda", dtype)}
    assert slim(x).device.type == "cuda"
    assert plan.groups.keys() == pruned(randomise(Chain()), X[:1])[0].groups.keys()
    slim(x).sum().backward()
    assert slim.conv1.weight.grad is not None


@cuda
def test_the_gate_on_a_gpu():
    model, x = randomise(Chain()).cuda(), X.cuda()
    plan, slim = pruned(model, x[:1])
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
