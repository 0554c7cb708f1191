"""Streams are turned where nothing but sums and layers touch them; the network stays what it was, and loses less."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn

import structprune as sp
from structprune.errors import RecipeError
from structprune.graph.streams import find_streams
from structprune.recipe import check_recipe
from structprune.records import Scores
from structprune.rewrites import Rotation, rotate
from structprune.suites.equality import random_plan
from structprune.suites.random_networks import Case
from tests.example_networks import randomise


class Block(nn.Module):
    """A convolution with an activation inside, and a sum without."""

    def __init__(self, width, bias):
        super().__init__()
        self.wide, self.relu = nn.Conv2d(width, 24, 3, padding=1), nn.ReLU()
        self.narrow, self.norm = nn.Conv2d(24, width, 1, bias=bias), nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.norm(self.narrow(self.relu(self.wide(x))))


class Net(nn.Module):
    def __init__(self, bias=False, width=12):
        super().__init__()
        self.stem, self.blocks = (
            nn.Conv2d(3, width, 3, padding=1),
            nn.Sequential(Block(width, bias), Block(width, bias)),
        )
        self.head, self.last = nn.Conv2d(width, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        return self.last(self.head(self.blocks(self.stem(x))).relu().mean((2, 3)))


def trained(model):
    """With BatchNorm statistics, scales and shifts that are not those of a new network."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(32, 3, 9, 9) @ torch.randn(9, 9)


@pytest.mark.parametrize("bias", [False, True])
def test_a_network_computes_what_it_did_before_and_its_batchnorms_see_what_they_expect(images, bias):
    torch.manual_seed(0)
    model = trained(Net(bias))
    with torch.no_grad():
        expected = model(images)
        graph = sp.trace(model, images[:1])
        before = model.state_dict()["stem.weight"].clone()
        rotation = rotate(graph, images)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    assert rotation.streams == ("stem",)
    assert rotation.difference < 1e-5
    assert not torch.allclose(model.stem.weight, before)
    for block in model.blocks:  # the variance of what enters it is measured, as its running one was made up
        entering = []
        handle = block.norm.register_forward_pre_hook(lambda module, args, entering=entering: entering.append(args[0]))
        with torch.no_grad():
            model(images)
        handle.remove()
        variance = entering[0].transpose(0, 1).flatten(1).var(1)
        torch.testing.assert_close(block.norm.running_var, variance, rtol=1e-2, atol=1e-6)
        torch.testing.assert_close(block.norm.weight**2, block.norm.running_var + block.norm.eps)


def only_stem(choices, *_):
    return {choice.group.name: 5 if choice.group.name == "stem" else choice.group.units for choice in choices}


def test_what_has_no_part_in_the_stream_goes_without_loss(images):
    """Twelve channels that are mixtures of five lose nothing when seven go, whichever channels they were."""
    torch.manual_seed(0)
    model = trained(Net())
    mixture = torch.randn(12, 5)
    with torch.no_grad():
        model.stem.weight.copy_(torch.einsum("ok,k...->o...", mixture, torch.randn(5, 3, 3, 3)))
        model.stem.bias.copy_(mixture @ torch.randn(5))
        for block in model.blocks:
            gain = block.norm.weight / (block.norm.running_var + block.norm.eps).sqrt()
            made = torch.einsum("ok,k...->o...", mixture, torch.randn(5, 24, 1, 1))
            block.narrow.weight.copy_(made / gain[:, None, None, None])
            block.norm.bias.copy_(mixture @ torch.randn(5) + gain * block.norm.running_mean)
        expected = model(images)
        losses = []
        for turned in (False, True):
            network = copy.deepcopy(model)
            graph = sp.trace(network, images[:1])
            rotation = rotate(graph, images) if turned else Rotation(())
            scores = rotation.ranked(sp.score(graph, "l1"))
            plan = sp.plan(graph, scores, {"macs": 1.0}, allocation=only_stem, align=1)
            slim = sp.recover(network, sp.prune(network, plan), plan, images, ["means"]).model
            assert slim.stem.out_channels == 5
            losses.append(float((slim(images) - expected).square().mean() / expected.var()))
    assert losses[1] < 1e-6
    assert losses[0] > 1e-2


class Twice(Net):
    def forward(self, x):
        return self.last(self.head(self.blocks(self.stem(x) * 2)).relu().mean((2, 3)))


class Gated(Net):
    def forward(self, x):
        x = self.stem(x)
        return self.last(self.head(x * x.mean((2, 3), keepdim=True).sigmoid()).relu().mean((2, 3)))


class Joined(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(24, 16, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.last(self.head(torch.cat([x, self.blocks[0](x)], 1)).relu().mean((2, 3)))


class Shared(Net):
    def forward(self, x):
        return self.last(self.head(self.blocks[0](self.blocks[0](self.stem(x)))).relu().mean((2, 3)))


class Active(Net):
    def forward(self, x):
        return self.last(self.head(self.blocks(self.stem(x).relu())).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", [Twice, Gated, Joined, Shared, Active])
def test_channels_that_anything_else_touches_are_no_stream(images, kind):
    torch.manual_seed(0)
    model = trained(kind())
    graph = sp.trace(model, images[:1])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    rotation = rotate(graph, images)
    assert "stem" not in rotation.streams
    assert rotation.streams or "no group is a linear stream" in rotation.notes[0]
    if not rotation.streams:
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


MORE = [
    pytest.param(name, marks=pytest.mark.thorough)
    for name in ("mobilenetv2_035", "mobilenetv3_small_050", "mnasnet_small")
]


@pytest.mark.parametrize("name", ["test_efficientnet", *MORE])
def test_streams_of_mobile_networks_pass_the_gate(name):
    torch.manual_seed(0)
    model = trained(timm.create_model(name, num_classes=7))
    x = torch.randn(4, 3, 64, 64)
    expected = model(x).detach()
    graph = sp.trace(model, x[:1])
    rotation = rotate(graph, x)
    assert len(rotation.streams) >= 3
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3 * float(expected.detach().abs().max()))
    plan = sp.plan(graph, rotation.ranked(sp.score(graph, "l1")), {"macs": 0.6}, align=1)
    assert "not for its weights as they came" in " ".join(plan.notes)
    assert sp.verify(model, sp.prune(model, plan), plan, x).passed


SEEDS = [pytest.param(seed, marks=pytest.mark.thorough) for seed in (10, 13, 15, 19, 20, 22, 25, 32)]


@pytest.mark.parametrize("seed", [2, 8, 215, 302, *SEEDS])  # whose networks have streams
def test_random_networks_stay_what_they_were(seed):
    case = Case.random(seed)
    model, x = case.build()
    randomise(model)
    images = torch.cat([x, torch.randn(3, *x.shape[1:])])
    expected = model(images).detach()
    graph = sp.trace(model, x, form=case.form)
    rotation = rotate(graph, images)
    assert rotation.streams == tuple(stream.name for stream in find_streams(graph)) != ()
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    plan = random_plan(graph, seed)
    gate = sp.verify(model, sp.prune(model, plan), plan, x)
    assert gate.passed, gate.reasons()


def test_units_of_streams_are_ranked_by_their_axes_and_all_others_by_the_criterion():
    scores = Scores(values={"a": np.array([1.0, 3.0, 2.0]), "b": np.array([1.0, 3.0, 2.0])}, criterion="l1")
    ranked = Rotation(("a",)).ranked(scores)
    assert ranked.values["a"].tolist() == [3, 2, 1]
    assert ranked.values["b"].tolist() == [1, 3, 2]
    assert scores.values["a"].tolist() == [1, 3, 2]


SPEC = {
    "model": {"name": "test_efficientnet", "kwargs": {"in_chans": 1, "num_classes": 10}},
    "data": {"source": "digits", "image_size": 32, "calibration": {"images": 32}},
    "prune": {"budget": {"macs": 0.5}, "rotate": True},
}


def test_a_recipe_needs_images_for_it_and_the_weights_that_it_turns():
    assert check_recipe(SPEC).prune.rotate
    with pytest.raises(RecipeError, match=r"prune\.rotate needs calibration images: add data\.calibration"):
        check_recipe({**SPEC, "data": {"source": "digits"}})
    with pytest.raises(RecipeError, match=r"prune\.rotate turns the weights, which finetune\.start=scratch gives up"):
        check_recipe({**SPEC, "finetune": {"epochs": 1, "lr": 0.1, "start": "scratch"}})
    with pytest.raises(RecipeError, match="surgery=merge makes clusters of them: choose one"):
        check_recipe({**SPEC, "prune": {**SPEC["prune"], "surgery": "merge"}})
    told = check_recipe({**SPEC, "train": {"epochs": 2, "lr": 0.1, "methods": ["splicing"]}}).cautions
    assert any("prune.rotate makes mixtures" in line for line in told)


@pytest.mark.thorough
def test_a_cut_in_rounds_ends_in_one_plan_of_the_turned_network(tmp_path):
    prune = {**SPEC["prune"], "schedule": {"rounds": 2, "epochs": 0}}
    report = sp.run(check_recipe({**SPEC, "prune": prune, "bench": {"seconds": 0.1}}), tmp_path / "out")
    assert report["gate"]["passed"]
    assert len(report["rounds"]) == 2


def test_a_run_turns_streams_and_a_second_one_finds_what_the_first_has_made(tmp_path):
    recipe = check_recipe({**SPEC, "recover": ["means"], "bench": {"seconds": 0.1}})
    report = sp.run(recipe, tmp_path / "out")
    assert report["gate"]["passed"]
    assert any("linear streams are turned" in line for line in report["notes"])
    again = sp.run(recipe, tmp_path / "out", resume=True)
    assert (again["quality"], again["macs"]) == (report["quality"], report["macs"])
