"""The optimiser's state is cut with its weights: held against states that are cut by hand."""

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import RecipeError, TrainingError
from structprune.modules import tensors
from structprune.recipe import TrainSpec, check_recipe
from structprune.schedules.optimizer_state import CarriedState, cut_state, uncuttable
from structprune.tasks.building import make_task
from structprune.train.method import Training
from structprune.train.optimisation import make_optimizer
from tests.run.small_network import RECIPE, Small

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 5))
    return nn.Sequential(*layers)


def stepped(model, spec, steps=3):
    optimizer = make_optimizer(model, spec)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    return optimizer


def training(model, optimizer):
    return Training(model, optimizer, make_task(), 1, 1, 0, make_example=lambda: None, make_batches=lambda: ())


def carried(tmp_path, spec):
    """The optimisers of a network, and of what a plan leaves of it, which goes on from the first."""
    model = network()
    optimizer = stepped(model, spec)
    first = CarriedState(None, None, tmp_path / "first")
    first.start(training(model, optimizer))
    first.finish(model)
    graph = sp.trace(model.eval(), X)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, align=1)
    slim = sp.prune(model, plan)
    other = make_optimizer(slim, spec)
    CarriedState(tmp_path / "first", plan, tmp_path / "second").start(training(slim, other))
    return model, optimizer, plan, slim, other


@pytest.mark.parametrize("opt", ["adamw", "momentum", "lamb", "lion"])
def test_moments_are_cut_as_their_weights(tmp_path, opt):
    spec = TrainSpec(epochs=1, lr=0.01, opt=opt, weight_decay=0.1)
    model, optimizer, plan, slim, other = carried(tmp_path, spec)
    conv, norm, last, head = (plan.groups[name]["kept"] for name in ("0", "0", "3", "3"))
    places = [16 * channel + place for channel in head for place in range(16)]  # a channel is 4 × 4 after flattening
    by_hand = {
        "0.weight": lambda m: m[conv],
        "0.bias": lambda m: m[conv],
        "1.weight": lambda m: m[norm],
        "3.weight": lambda m: m[last][:, conv],
        "5.weight": lambda m: m[:, places],
        "5.bias": lambda m: m,
    }
    dense, own = tensors(model), tensors(slim)
    checked = 0
    for key, cut in by_hand.items():
        before, after = optimizer.state[dense[key]], other.state[own[key]]
        assert before.keys() == after.keys()
        for name, value in before.items():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                assert torch.equal(after[name], cut(value)), (key, name)
                assert after[name].shape == own[key].shape
                checked += 1
            else:
                assert after[name] == value
    assert checked >= len(by_hand)
    for old, new in zip(optimizer.param_groups, other.param_groups, strict=True):
        assert new.get("step") == old.get("step")
    slim.train()
    slim(X).square().mean().backward()
    other.step()  # and goes on


def test_a_state_of_another_shape_is_refused_where_its_weight_was_cut(tmp_path):
    plan = carried(tmp_path, TrainSpec(epochs=1, lr=0.01))[2]
    state = {"parameters": {"0.weight": {"rows": torch.zeros(8)}}, "groups": []}
    with pytest.raises(
        TrainingError, match=r"keeps rows of shape \[8\] for 0.weight of shape \[8, 3, 3, 3\], which can't"
    ):
        cut_state(state, plan)
    kept = {"parameters": {"other": {"rows": torch.zeros(8)}}, "groups": []}
    assert torch.equal(cut_state(kept, plan)["parameters"]["other"]["rows"], torch.zeros(8))


def test_an_optimizer_whose_state_can_not_be_cut_is_refused_at_the_start():
    assert uncuttable(TrainSpec(epochs=1, lr=0.01)) is None
    recipe = {**RECIPE, "prune": {"budget": {"macs": 0.5}, "schedule": {"rounds": 2}}}
    recipe["finetune"] = {**RECIPE["finetune"], "opt": "adafactor"}
    with pytest.raises(
        RecipeError, match=r"opt=adafactor keeps exp_avg_sq_row of shape .* set prune.schedule.optimizer to new"
    ):
        check_recipe(recipe)
    recipe["prune"]["schedule"]["optimizer"] = "new"
    check_recipe(recipe)


def test_tensors_in_lists_are_refused_as_they_have_no_unit_of_their_own():
    assert "Q of several tensors" in uncuttable(TrainSpec(epochs=1, lr=0.01, opt="kron"))
    model = Small()
    graph = sp.trace(model, torch.zeros(2, 1, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    key = next(iter(plan.keep))
    state = {"parameters": {key: {"Q": [torch.eye(3)]}}, "groups": []}
    with pytest.raises(TrainingError, match=r"keeps Q of several tensors for .*set prune.schedule.optimizer to new"):
        cut_state(state, plan)
