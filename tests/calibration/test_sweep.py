"""Going through a network call by call gives what running it gives, also while weights change."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.calibration import Observer, Sweep, WritableNetwork, batches_of
from structprune.errors import RecipeError
from structprune.models import build_model
from structprune.modules import evaluating
from structprune.ops import Inputs
from structprune.recipe import ModelSpec
from tests.example_networks import Chain


class InPlace(nn.Module):
    """Writes in place, through views too, and reads what it wrote later."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu_(self.a(x))
        first, second = x.chunk(2, dim=1)
        first.add_(second)
        y = self.b(x)
        y += x
        y = F.relu(y, inplace=True)
        z = self.c(y)
        z.mul_(0.5).add_(y)
        return self.fc(z.mean((2, 3)))


class Halves(nn.Module):
    """Takes slices whose bounds follow a size: all of an axis or of two, and the halves of another."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = self.a(x[:, :, : x.shape[2], : x.shape[3]])
        half = y.shape[1] // 2
        return self.b(y[:, :half] * torch.sigmoid(y[:, half:])[:, :, : y.shape[2]])


def test_slices_that_follow_a_size_are_met_again():
    model, x = Halves().eval(), torch.randn(4, 3, 6, 6)
    graph = sp.trace(model, x[:1])
    scan = sp.sensitivity(graph, sp.score(graph, "l1"), [x, x], ratios=[0.5])
    assert set(scan.losses) == {"a"}
    working = WritableNetwork.of(model, Inputs.of(x))
    with evaluating(working.module), torch.no_grad():
        (result,) = Sweep(working.module, working.recording, [Inputs.of(x)]).finish()
        assert torch.equal(result, model(x))


def written(index, value):
    def write(y):
        y = y.clone()
        y[index(y) if callable(index) else index] = value(y) if callable(value) else value
        return y

    return write


INDICES = {
    "a place beside half of an axis": lambda y: y[:, 0, : y.shape[2] // 2],
    "an image's half": lambda y: y[0, : y.shape[1] // 2],
    "all but the last of one channel": lambda y: y[:, 1, :-1],
    "halves around a place": lambda y: y[:, y.shape[1] // 2 :, -1, : y.shape[3]],
    "a new axis before half": lambda y: y[..., None, : y.shape[3] // 2],
    "half of an axis before a tensor's number": lambda y: y[:, : y.shape[1] // 2, : torch.tensor(2)],
    "places of a list beside half": lambda y: y[:, [2, 0], : y.shape[2] // 2],
    "places by a number of its size": lambda y: y[:, y.shape[1] // 2, : y.shape[2] // 2],
    "channels turned round": lambda y: y[:, [3, 2, 1, 0]],
    "a range of images": lambda y: y[range(2)],
    "an array of places": lambda y: y[:, np.arange(4)[::-1].copy()],
    "lists in a list": lambda y: y[:, [[0, 1], [2, 3]]],
    "a mask in a list": lambda y: y[:, [True, False, True, False]],
    "a mask of constants": lambda y: y[:, torch.arange(4) > 1],
    "a number into a channel": written((slice(None), 0), 1),
    "a number into a list of channels": written((slice(None), [0, 3]), 0.5),
    "a truth value below half": written(lambda y: (0, slice(y.shape[1] // 2)), True),
    "zero where values are small": written(lambda y: y < 0.1, 0.0),
    "channels into channels": written((slice(None), [0, 1]), lambda y: y[:, [2, 3]]),
    "masked channels into others": written(
        (slice(None), [True, True, False, False]), lambda y: y[:, torch.arange(4) > 1]
    ),
}


class Indexed(nn.Module):
    def __init__(self, take):
        super().__init__()
        self.a, self.b, self.take = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), take

    def forward(self, x):
        y = self.take(self.b(self.a(x[:, [2, 1, 0]]).relu()))
        return y.flatten(1).mean(1)


@pytest.mark.parametrize("take", INDICES.values(), ids=INDICES.keys())
def test_every_way_to_index_is_met_again(take):
    model = Indexed(take).eval()
    traced, *others = (torch.randn(n, 3, 6, 6) for n in (2, 2, 3))
    working = WritableNetwork.of(model, Inputs.of(traced))
    batches = [Inputs.of(x) for x in others]
    sweep = Sweep(working.module, working.recording, batches)
    with evaluating(working.module), torch.no_grad():
        for layer in working.layers:
            sweep.until(layer.place)
        for result, x in zip(sweep.finish(), others, strict=True):
            assert torch.equal(result, model(x))


@pytest.mark.parametrize("name", [None, "test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_every_stop_sees_what_a_plain_run_sees(name):
    model = (InPlace() if name is None else build_model(ModelSpec(name=name), seed=0)).eval()
    size = 12 if name is None else 64
    if name == "test_vit":
        size = 160
    batches = [Inputs.of(torch.randn(n, 3, size, size)) for n in (2, 3)]
    working = WritableNetwork.of(model, batches[0])
    sweep = Sweep(working.module, working.recording, batches)
    for layer in working.layers:
        seen = []
        with evaluating(working.module):
            for batch in batches:
                with Observer({layer.site: lambda args, result, seen=seen: seen.append(args[0].clone())}):
                    batch.call(working.module)
        stopped = sweep.until(layer.place)
        assert all(torch.equal(args[0], x) for args, x in zip(stopped, seen, strict=True)), layer.module
        working.write(layer.weight, working.state[layer.weight] * 0.9)  # seen by all that come later
    with torch.no_grad():
        for made, batch in zip(sweep.finish(), batches, strict=True):
            torch.testing.assert_close(made, batch.call(working.result.eval()))


def test_looking_ahead_changes_nothing():
    model = InPlace().eval()
    batches = [Inputs.of(torch.randn(2, 3, 8, 8))]
    working = WritableNetwork.of(model, batches[0])
    sweep = Sweep(working.module, working.recording, batches)
    first, second = working.layers[1], working.layers[2]
    sweep.until(first.place)
    ahead = []
    sweep.look({second.place: lambda batch, args: ahead.append(args[0].clone())})
    assert torch.equal(ahead[0], sweep.until(second.place)[0][0])
    with pytest.raises(ValueError, match="is behind call"):
        sweep.until(first.place)


def test_the_model_itself_is_left_as_it_was():
    model = InPlace().eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    working = WritableNetwork.of(model, Inputs.of(torch.randn(2, 3, 8, 8)))
    for key in working.state:
        working.write(key, working.state[key] * 0)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_calibration_data_in_every_form_gives_the_same_scores():
    images, labels = torch.randn(20, 3, 12, 12), torch.arange(20) % 5
    graph = sp.trace(Chain(), images[:1])
    dataset = torch.utils.data.TensorDataset(images, labels)
    loader = torch.utils.data.DataLoader(dataset, batch_size=16)
    expected = sp.score(graph, "taylor", images, labels=labels).values
    for data in (dataset, loader, [(images[:16], labels[:16]), (images[16:], labels[16:])]):
        found = sp.score(graph, "taylor", data).values
        assert all((found[name] == expected[name]).all() for name in expected)
    keywords = [{"x": images[:16]}, {"x": images[16:]}]
    moments = sp.score(graph, "variance", images).values
    assert all((sp.score(graph, "variance", keywords).values[name] == moments[name]).all() for name in moments)
    assert [batch.images for batch in batches_of(images)] == [16, 4]
    with pytest.raises(RecipeError, match=r"labels of 18 images go with a tensor of as many images, .* Tensor of 20"):
        sp.score(graph, "taylor", images, labels=labels[:18])
    with pytest.raises(RecipeError, match="data is a TensorDataset; a Dataset or loader gives"):
        sp.score(graph, "taylor", dataset, labels=labels)
    with pytest.raises(RecipeError, match="calibration data is a str"):
        batches_of("images")
    with pytest.raises(RecipeError, match="there is no calibration data"):
        batches_of([])


@pytest.mark.parametrize("memory", [0, 9_000, 1e9])
@pytest.mark.parametrize("build", [InPlace, lambda: build_model(ModelSpec(name="test_resnet"), seed=0)])
def test_what_does_not_fit_into_memory_is_computed_anew(build, memory):
    model = build().eval()
    batches = [Inputs.of(torch.randn(n, 3, 12, 12)) for n in (2, 3, 1)]
    working, plain = (WritableNetwork.of(model, batches[0]) for _ in range(2))
    whole = Sweep(plain.module, plain.recording, batches)
    sweep = Sweep(working.module, working.recording, batches, memory)
    for layer in working.layers:
        seen = [args[0].clone() for _, args in [*sweep_to(sweep, layer.place)]]
        assert all(torch.equal(x, args[0]) for x, args in zip(seen, whole.until(layer.place), strict=True))
        for net in (working, plain):
            net.write(layer.weight, net.state[layer.weight] * 0.9)
    for ours, theirs in zip(sweep.finish(), whole.finish(), strict=True):
        assert torch.equal(ours, theirs)
    assert whole.anew == 0
    assert (sweep.anew == 0) == (memory == 1e9)
    kept = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for held in sweep.kept for x in held.values()}
    assert sum(kept.values()) <= memory


def sweep_to(sweep, place):
    sweep.go(place)
    return sweep.arguments()
