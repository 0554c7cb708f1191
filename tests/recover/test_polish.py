"""The polish: where networks are compared, what it wins, and that it never leaves a network worse."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.calibration import Batch, Observer, WritableNetwork, batches_of
from structprune.errors import RecipeError
from structprune.modules import evaluating, tensors
from structprune.ops import Inputs
from structprune.recover.comparison_points import find_points
from structprune.recover.polish import step_size
from structprune.recover.sample_views import Samples, other_views
from structprune.verify import expanded, masked
from tests.example_networks import Tied, pruned, randomise
from tests.recover.test_attention import Attention, cut

DATA = torch.randn(48, 3, 10, 10, generator=torch.Generator().manual_seed(3))
OTHERS = torch.randn(64, 3, 10, 10, generator=torch.Generator().manual_seed(11))
QUICK = {"method": "polish", "weights": "full", "block_epochs": 1, "epochs": 4, "lr": 3e-3}


class Residual(nn.Module):
    def __init__(self, width, groups=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=groups, bias=False)
        self.bn2, self.conv3 = nn.BatchNorm2d(2 * width), nn.Conv2d(2 * width, width, 1)

    def forward(self, x):
        y = F.relu_(self.bn1(self.conv1(x)))
        return x + self.conv3(F.relu(self.bn2(self.conv2(y))))


class Residuals(nn.Module):
    """A stem, residual blocks with plain, grouped and depthwise convolutions, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3), nn.Sequential(Residual(8), Residual(8, 4), Residual(8, 16))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def error(model, slim, x=OTHERS):
    with torch.no_grad():
        return float((slim(x) - model(x)).square().mean() / model(x).var())


def networks(build=Residuals, form="module"):
    torch.manual_seed(0)
    model = randomise(build())
    plan, slim = pruned(model, DATA[:1], 0.6, form)
    return model, plan, slim


def mended(model, plan, slim, steps, data=DATA, **options):
    done = sp.recover(model, slim, plan, data, steps, **options)
    gate = sp.verify(expanded(model, done.model, plan), done.model, plan, DATA[:2])
    assert gate.passed, gate.reasons()
    return done


class Concatenation(nn.Module):
    """Two branches end to end, shuffled channels, and a projection of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.shuffle = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 10, 3), nn.ChannelShuffle(2)
        self.mix, self.head = nn.Conv2d(16, 12, 1), nn.Linear(12, 3)

    def forward(self, x):
        x = self.mix(self.shuffle(torch.cat([self.a(x), self.b(x)], 1)).relu())
        return self.head(x.flatten(2).mT).mean(1)


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("build", [Residuals, Concatenation, Tied])
def test_at_each_point_the_masked_network_makes_what_the_slim_one_makes(build, form):
    """On the positions that the plan keeps, and so these are the right ones."""
    model, plan, slim = networks(build, form)
    reference, inputs = masked(model, plan), Inputs((DATA[:4],), {})
    points = find_points(WritableNetwork.of(model, inputs), WritableNetwork.of(slim, inputs), plan, inputs)
    assert len(points) >= 2
    assert any(point.kept for point in points)
    values = []
    for network in (reference, slim):
        results = {}
        watch = {
            point.site: lambda args, x, site=point.site, to=results: to.update({site: x.clone()}) for point in points
        }
        with evaluating(network), Observer(watch):
            network(DATA[:4])
        values.append(results)
    for point in points:
        torch.testing.assert_close(point.as_slim(values[0][point.site]), values[1][point.site], rtol=1e-4, atol=1e-5)


def test_points_are_the_results_of_blocks():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.Sequential(*[nn.Sequential(*[Residual(8) for _ in range(5)]) for _ in range(3)])

        def forward(self, x):
            return self.stages(torch.cat([x, x, x[:, :2]], 1)).mean((2, 3))

    model, plan, slim = networks(Deep)
    inputs = Inputs((DATA[:2],), {})
    points = find_points(WritableNetwork.of(model, inputs), WritableNetwork.of(slim, inputs), plan, inputs)
    assert [point.module for point in points] == [f"stages.{i}.{j}" for i in range(3) for j in range(5)]
    assert {point.site[0] for point in points} == {"add"}


def test_a_plan_of_another_network_leads_to_no_points():
    model, plan, slim = networks()
    wrong = copy.deepcopy(plan)
    wrong.keep["blocks.0.conv1.weight"]["0"] = wrong.keep["blocks.0.conv1.weight"]["0"][:-1]
    nets = [WritableNetwork.of(network, Inputs((DATA[:2],), {})) for network in (model, slim)]
    assert find_points(*nets, wrong, Inputs((DATA[:2],), {})) == []


def noisy(scale, form="module"):
    """A network and a slim one with noise in its weights, that could make nearly the same outputs, as what was cut had
    almost no effect."""
    torch.manual_seed(0)
    model = randomise(Residuals())
    with torch.no_grad():
        for layer in (model.stem, *(block.conv3 for block in model.blocks)):
            layer.weight[::2], layer.bias[::2] = 0, 0
        for block in model.blocks:
            for layer, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
                layer.weight[::2], norm.weight[::2], norm.bias[::2], norm.running_mean[::2] = 0, 0, 0, 0
    plan, slim = pruned(model, DATA[:1], 0.6, form)
    assert error(model, slim) < 1e-3
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter += scale * parameter.std() * torch.randn_like(parameter)
    return model, plan, slim


@pytest.mark.parametrize("form", ["module", "graph"])
def test_noise_in_the_weights_is_trained_away(form):
    model, plan, slim = noisy(0.1, form)
    statistics = {key: x.clone() for key, x in slim.named_buffers()}
    done = mended(model, plan, slim, [QUICK])
    assert error(model, done.model) < 0.4 * error(model, slim)
    assert done.layers[0] > 0
    assert "held-out samples the distance from the dense network's outputs fell from" in done.notes[-1]
    for key, buffer in done.model.named_buffers():
        assert torch.equal(buffer, statistics[key]), key


def test_an_average_is_kept_of_steps_that_are_too_large_for_each_to_be_better(monkeypatch):
    """Training itself goes on from the last step, whatever was judged in between."""
    model, plan, slim = noisy(0.05)
    before, after = [], []
    step = torch.optim.Adam.step

    def values(optimizer):
        return torch.cat([p.detach().flatten() for group in optimizer.param_groups for p in group["params"]])

    def recorded(self, *args):
        before.append(values(self))
        step(self, *args)
        after.append(values(self))

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    done = mended(model, plan, slim, [{**QUICK, "block_epochs": 0, "epochs": 40, "lr": 0.08}])
    assert error(model, done.model) < 0.5 * error(model, slim)
    kept = torch.cat([p.detach().flatten() for p in done.model.parameters()])
    epochs = [torch.stack(after[i : i + 3]) for i in range(0, len(after), 3)]  # of 40 samples, 16 in a step
    assert any(torch.allclose(kept, steps.mean(0), atol=1e-5) for steps in epochs)
    assert not any(torch.allclose(kept, steps[-1], atol=1e-5) for steps in epochs)
    assert all(torch.equal(a, b) for a, b in zip(after, before[1:], strict=False))


def test_the_network_stays_as_it_is_where_training_does_not_help():
    model, plan, slim = networks()
    done = mended(model, plan, slim, [{**QUICK, "lr": 1e3}])
    for key, tensor in tensors(slim).items():
        assert torch.equal(tensor, tensors(done.model)[key]), key
    assert done.layers == [0]
    assert len(done.notes) == 1
    assert "polish changed nothing: no epoch was better on 8 held-out samples than before" in done.notes[0]


def test_the_seed_decides():
    model, plan, slim = networks()
    first, again, other = (sp.recover(model, slim, plan, DATA, [QUICK], seed=seed).model for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.stem.weight, other.stem.weight)


def test_shared_weights_stay_shared_and_frozen_ones_frozen():
    torch.manual_seed(0)
    model = Tied().eval()
    for parameter in model.head.parameters():
        parameter.requires_grad_(False)
    plan, slim = pruned(model, DATA[:1], 0.6)
    done = mended(model, plan, slim, [QUICK])
    assert done.layers == [4]
    assert done.model.b.weight is done.model.c.weight
    assert [p.requires_grad for p in done.model.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(parameter.grad is None for parameter in done.model.parameters())
    assert error(model, done.model) < error(model, slim)


def test_it_is_broken_off_by_an_interrupt():
    model, plan, slim = networks()
    before = {key: tensor.clone() for key, tensor in tensors(slim).items()}
    shares = []

    def progress(share):
        shares.append(share)
        if share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sp.recover(model, slim, plan, DATA, [QUICK], progress=progress)
    assert shares == sorted(shares)
    assert all(torch.equal(before[key], tensor) for key, tensor in tensors(slim).items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in slim.parameters())


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"memory": 1e4}, DATA, "polish changed nothing: a step of one sample takes"),
        ({}, DATA[:2], "polish changed nothing: some samples are held out, so give 4 calibration images or more"),
    ],
)
def test_what_it_can_not_do_is_said(options, data, message):
    model, plan, slim = networks()
    done = sp.recover(model, slim, plan, data, [QUICK], **options)
    assert done.layers == [0]
    assert done.notes[0].startswith(message)
    assert len(done.notes) == 1


def test_less_memory_makes_smaller_steps():
    _, _, slim = networks()
    batch = Batch(Inputs((DATA[:4],), {}))
    network = WritableNetwork.of(slim, batch.inputs)
    sizes = [step_size(network, batch, memory) for memory in (1e9, 6e5, 2e5)]
    assert sizes[0] == 16
    assert 1 <= sizes[2] < sizes[1] < 16


def test_no_sample_is_both_seen_and_held_out():
    samples = Samples(batches_of(torch.arange(100.0).reshape(100, 1)))
    held = torch.cat([inputs.args[0] for inputs in samples.unseen(7)]).flatten()
    epochs = [torch.cat([i.args[0] for i in samples.epoch(16, torch.Generator().manual_seed(s))]) for s in (0, 1)]
    assert 10 <= len(held) <= 25
    assert (held.diff() == 1).sum() >= len(held) // 2  # runs of neighbours, as a class or a file makes them
    for seen in epochs:
        assert sorted([*seen.flatten().tolist(), *held.tolist()]) == list(range(100))
    assert not torch.equal(*epochs)


@pytest.mark.thorough
def test_images_of_several_sizes_are_trained_on_batch_by_batch():
    model, plan, slim = networks()
    data = [torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(size)) for size in range(8, 20)]
    samples = Samples(batches_of(data))
    assert not samples.apart
    assert [len(x.args[0]) for x in samples.epoch(16, torch.Generator())] == [4] * 10
    mended(model, plan, slim, [QUICK], data)


def test_views_keep_shapes_and_leave_whole_numbers_alone():
    images, more = torch.rand(6, 3, 8, 8) + 1, torch.rand(6, 5) + 1
    other = other_views(Inputs((images,), {"more": more}), torch.Generator().manual_seed(0))
    assert other.args[0].shape == images.shape
    assert not torch.equal(other.args[0], images)
    assert 1 <= other.args[0].min() <= other.args[0].max() <= 2  # mixtures of what is there, also at the borders
    assert not torch.equal(other.kwargs["more"], more)
    tokens = Inputs((torch.arange(12).reshape(3, 4), images[:3]), {})
    assert other_views(tokens, torch.Generator()) is tokens


class Attending(nn.Module):
    """A layer, attention whose heads are cut, and a layer."""

    def __init__(self):
        super().__init__()
        self.enter, self.attention, self.head = nn.Linear(8, 12), Attention("plain"), nn.Linear(12, 3)

    def forward(self, x):
        x = self.enter(x)
        return self.head(x + self.attention(x))


@pytest.mark.thorough
def test_mixtures_of_heads_are_not_held_against_the_dense_network_s_channels():
    torch.manual_seed(0)
    model, x = Attending().eval(), torch.randn(48, 6, 8)
    plan, slim = cut(model, x, 4)
    inputs = Inputs((x[:2],), {})
    points = find_points(WritableNetwork.of(model, inputs), WritableNetwork.of(slim, inputs), plan, inputs)
    assert [point.module for point in points] == ["enter", "attention.proj"]
    done = sp.recover(model, slim, plan, x, ["means", "least_squares", QUICK])
    gate = sp.verify(expanded(model, done.model, plan), done.model, plan, x[:2])
    assert gate.passed, gate.reasons()


def test_a_network_of_merged_channels_learns_from_the_outputs():
    torch.manual_seed(0)
    model = randomise(Residuals())
    graph = sp.trace(model, DATA[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1, surgery="merge")
    slim = sp.prune(model, plan)
    done = sp.recover(model, slim, plan, DATA, [QUICK])
    gate = sp.verify(model, done.model, plan, DATA[:2], trained=True)
    assert gate.passed, gate.reasons()
    assert "polish compared the outputs alone" in done.notes[0]
    assert error(model, done.model) < error(model, slim)


def test_few_weights_are_trained_by_default():
    """Scales, shifts and biases, which few images suffice for."""
    model, plan, slim = networks()
    done = mended(model, plan, slim, [{"method": "polish", "lr": 3e-3}])
    pairs = zip(slim.named_parameters(), done.model.parameters(), strict=True)
    changed = {key for (key, before), after in pairs if not torch.equal(before, after)}
    assert changed == {key for key, parameter in slim.named_parameters() if parameter.dim() == 1}
    assert error(model, done.model) < error(model, slim)


def test_a_network_without_scales_and_biases_is_left_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False)).eval()
    plan, slim = pruned(model, DATA[:1], 0.6)
    done = sp.recover(model, slim, plan, DATA, ["polish"])
    assert done.notes == ["polish changed nothing: the network has no scales, shifts or biases in float32 or float64"]
    assert error(model, sp.recover(model, slim, plan, DATA, [QUICK]).model) < error(model, slim)


def test_what_memory_runs_out_in_the_middle_of_is_not_handed_on(monkeypatch):
    model, plan, slim = networks()
    whole = sp.recover(model, slim, plan, DATA, ["means", "least_squares"]).model
    calls, step = [], torch.optim.Adam.step

    def runs_out(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", runs_out)
    steps = ["means", "least_squares", {**QUICK, "lr": 0.05, "epochs": 9, "block_epochs": 0}]
    done = sp.recover(model, slim, plan, DATA, steps)
    assert len(calls) == 4
    assert any("polish was broken off" in note for note in done.notes)
    assert error(model, done.model) <= error(model, whole) * (1 + 1e-4)


def test_inference_mode_is_refused_in_a_line():
    model, plan, slim = networks()
    with torch.inference_mode(), pytest.raises(RecipeError, match=r"polish trains the network, which torch\.inference"):
        sp.recover(model, slim, plan, DATA, ["polish"])
