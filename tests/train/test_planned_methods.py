"""Methods that prepare the units of a plan to go, against their definitions."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch.optim.swa_utils import update_bn
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.errors import RecipeError
from structprune.progress import Reporter
from structprune.recipe import TrainSpec, check_recipe
from structprune.run import runner_of
from structprune.store.artefacts import Artefacts
from structprune.train import accuracy, fit, predict
from structprune.train.method import ComingCut, TrainingMethod, make_method
from structprune.train.zero_units import note_zero_units, zero_units
from tests.train.small_training import equal, interrupted, network, samples
from tests.train.test_sparse_methods import Residual, one_update

PLAN = {"budget": {"channels": 0.5}, "align": 1}


def removed_units(model, criterion="l2"):
    """The units of each group that a plan to half of them removes."""
    graph = sp.trace(model.eval(), samples()[0][:1])
    plan = sp.plan(graph, sp.score(graph, criterion), {"channels": 0.5}, align=1)
    return {name: sorted({*range(entry["units"])} - {*entry["kept"]}) for name, entry in plan.groups.items()}


def test_greg_adds_its_penalty_to_the_filters_that_a_plan_removes(tmp_path):
    chosen = removed_units(Residual())
    smallest = Residual().inner.weight.square().sum((1, 2, 3)).argsort()
    assert chosen["inner"] == sorted(smallest[: len(chosen["inner"])].tolist())
    without = one_update(tmp_path / "a", [])
    greg = one_update(tmp_path / "b", [{"method": "greg", "step": 0.02, **PLAN}])
    for name, group in (("inner", "inner"), ("conv1", "conv1"), ("conv2", "conv1")):
        start = getattr(Residual(), name).weight
        expected = torch.zeros_like(start)
        expected[chosen[group]] = 0.5 * 0.02 * start[chosen[group]]
        change = getattr(without, name).weight - getattr(greg, name).weight
        torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(without.head.weight, greg.head.weight)


def test_the_penalty_of_greg_grows_to_its_ceiling_and_the_units_go(tmp_path):
    from structprune.train.methods.greg import Greg, GregSpec

    method, penalties = Greg(GregSpec(step=0.25, interval=2, ceiling=0.6, **PLAN)), []
    for updates in range(7):
        method.updates = updates
        penalties.append(method.penalty)
    assert penalties == [0.25, 0.25, 0.5, 0.5, 0.6, 0.6, 0.6]
    options = {"method": "greg", "step": 0.1, "interval": 1, "ceiling": 3.0, **PLAN}
    spec = TrainSpec(epochs=15, batch_size=48, opt="momentum", lr=0.1, sched="constant", methods=[options])
    trained = fit(Residual(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c")
    chosen = removed_units(Residual())
    before, after = (net.inner.weight.square().sum((1, 2, 3)).sqrt() for net in (Residual(), trained))
    others = [unit for unit in range(5) if unit not in chosen["inner"]]
    assert before[chosen["inner"]].max() > 0.5 * before[others].min()
    assert after[chosen["inner"]].max() < 0.2 * after[others].min()
    assert removed_units(trained) == chosen


def zeros(layer):
    return (layer.weight.flatten(1) == 0).all(1).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("criterion", ["l2", "fpgm"])
def test_soft_pruning_zeroes_what_a_plan_removes_and_leaves_the_rest(tmp_path, criterion):
    without = one_update(tmp_path / "a", [])
    soft = one_update(tmp_path / "b", [{"method": "soft", "criterion": criterion, **PLAN}])
    chosen = removed_units(without, criterion)
    assert chosen["inner"]
    expected = {key: tensor.clone() for key, tensor in without.state_dict().items()}
    expected["inner.weight"][chosen["inner"]] = 0
    for layer in ("conv1", "conv2"):  # coupled
        expected[f"{layer}.weight"][chosen["conv1"]] = 0
    without.load_state_dict(expected)
    update_bn([samples()[0]], without)  # PyTorch's own: the statistics are those of the network with zeros
    for key, tensor in soft.state_dict().items():
        torch.testing.assert_close(tensor, without.state_dict()[key], msg=key, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("criterion", ["l2", "fpgm"])
def test_soft_filters_grow_back_and_are_what_the_runs_plan_removes_at_the_end(tmp_path, criterion):
    model, counts = Residual(), []
    options = {"method": "soft", "criterion": criterion, **PLAN}
    spec = TrainSpec(epochs=3, batch_size=64, opt="momentum", lr=0.05, sched="constant", methods=[options])

    def count(step, steps, shown):  # after a step's gradients, before its update
        counts.append(len(zeros(model.inner)))

    fit(model, TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c", progress=count)
    number = len(removed_units(model)["inner"])
    assert counts[:3] == [0, 0, 0]
    assert counts[3] == counts[6] == number
    assert counts[4] < number
    assert counts[7] < number
    assert zeros(model.inner) == removed_units(model)["inner"]
    assert zeros(model.conv1) == zeros(model.conv2) == removed_units(model).get("conv1", [])


def test_what_is_measured_and_kept_while_training_softly_is_the_network_with_zeros(tmp_path):
    images, labels = samples()
    notes, options = [], {"epochs": 3, "batch_size": 64, "lr": 0.01, "keep_best": True}
    spec = TrainSpec(**options, methods=[{"method": "soft", **PLAN}])
    held_out = TensorDataset(images[:60], labels[:60])
    training = TensorDataset(images[60:], labels[60:])
    model = fit(Residual(), training, spec, validation=held_out, seed=0, checkpoint=tmp_path / "c", tell=notes.append)
    value = accuracy(predict(model, images[:60]), labels[:60])
    assert f"was best, {value:.4f}," in notes[0]
    assert value > 0.5  # by chance: a third
    assert zeros(model.inner)
    means = model.conv1(images[60:]).mean((0, 2, 3))  # of 128 of the 132 images, in batches
    assert (model.bn1.running_mean - means).abs().max() < 0.1 * means.abs().max()


@pytest.mark.parametrize("bounded", [True, False])
def test_filters_that_grow_back_are_not_thrown_by_a_variance_of_zero(tmp_path, bounded):
    """The first update after a zeroing, on a network whose BatchNorms divide by √eps there."""
    grads = {}

    class Watch(TrainingMethod):
        def after_backward(self, model):
            weights = model[0].weight
            if not grads and (weights.detach().flatten(1) == 0).all(1).any():
                grads["zero"] = (weights.detach().flatten(1) == 0).all(1)
                grads["norms"] = weights.grad.flatten(1).norm(dim=1)

    options = {"method": "soft", "bounded": bounded, **PLAN}
    spec = TrainSpec(epochs=2, batch_size=48, opt="sgd", lr=0.05, methods=[options])
    soft = make_method(spec.methods[0], print)
    fit(
        network(), TensorDataset(*samples()), spec.model_copy(update={"methods": ()}), seed=0,
        checkpoint=tmp_path / "c", methods=[soft, Watch()],
    )  # fmt: skip
    largest, zeroed = grads["norms"][~grads["zero"]].max(), grads["norms"][grads["zero"]]
    assert len(zeroed) == 4
    if bounded:
        assert (zeroed <= largest * 1.0001).all()
        assert zeroed.max() > 0.5 * largest  # it grows
    else:
        assert zeroed.max() > 30 * largest


def test_filters_of_two_groups_in_one_weight_are_bounded_by_those_of_neither(tmp_path):
    """As of a fused layer of queries, keys and values, whose BatchNorm divides by √eps for the zero ones of both."""
    weight = torch.nn.Parameter(torch.ones(4, 3))
    weight.grad = torch.tensor([300.0, 1.0, 2.0, 400.0])[:, None] * torch.ones(4, 3)
    soft = make_method(TrainSpec(epochs=1, lr=0.1, methods=[{"method": "soft", **PLAN}]).methods[0], print)
    rows = torch.arange(4)[:, None]
    soft.units = SimpleNamespace(filters=lambda gone: iter([(weight, rows == 0), (weight, rows == 3)]))
    soft.after_backward(torch.nn.Module())
    torch.testing.assert_close(weight.grad[:, 0], torch.tensor([2.0, 1.0, 2.0, 2.0]))


def test_soft_weights_are_not_averaged():
    with pytest.raises(ValueError, match="model_ema averages the weights that method soft sets"):
        TrainSpec(epochs=1, lr=0.1, model_ema=True, methods=[{"method": "soft", **PLAN}])


@pytest.mark.parametrize("method", ["greg", "soft"])
def test_an_interrupted_training_ends_the_same(tmp_path, method):
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[{"method": method, **PLAN}])
    whole = fit(network(), TensorDataset(*samples()), spec, seed=5, checkpoint=tmp_path / "whole")
    assert equal(whole, interrupted(spec, tmp_path, at=9))
    plain = fit(
        network(),
        TensorDataset(*samples()),
        spec.model_copy(update={"methods": ()}),
        seed=5,
        checkpoint=tmp_path / "no",
    )
    assert not equal(whole, plain)


@pytest.mark.parametrize("method", ["greg", "soft"])
def test_what_is_refused(tmp_path, method):
    with pytest.raises(ValueError, match="criterion taylor needs more than weights"):
        TrainSpec(epochs=1, lr=0.1, methods=[{"method": method, "criterion": "taylor", **PLAN}])
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    spec = TrainSpec(epochs=1, batch_size=32, lr=0.1, methods=[{"method": method, **PLAN}])
    with pytest.raises(RecipeError, match="needs channels that can go"):
        fit(plain, TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c")


def recipe_of(method, finetune=None, **prune):
    return check_recipe(
        {
            "finetune": finetune,
            "model": {"name": "test_resnet", "kwargs": {"in_chans": 1, "num_classes": 10}},
            "data": {"source": "digits", "calibration": {"images": 48}},
            "train": {"epochs": 1, "batch_size": 256, "lr": 1e-3, "methods": [method]},
            "prune": {"budget": {"macs": 0.5}, **prune},
        }
    )


@pytest.mark.parametrize("name", ["greg", "soft"])
def test_what_a_method_plans_by_is_the_recipes_own(name):
    recipe = recipe_of(name, align=2, max_ratio=0.8, ignore=["stem*"])
    (method,) = recipe.train.methods
    assert (method.budget, method.allocation, method.align) == ({"macs": 0.5}, "uniform", 2)
    assert (method.max_ratio, method.ignore, method.min_channels) == (0.8, ("stem*",), 1)
    assert recipe.cautions == []
    (line,) = recipe_of({"method": name, "budget": {"macs": 0.4}, "align": 4}, align=2).cautions
    assert line == (
        f"train.methods: {name} prepares other units than the cut removes: it plans by budget={{'macs': 0.4}} where "
        "prune has {'macs': 0.5}; align=4 where prune has 2"
    )
    scanned = recipe_of(name, allocation="sensitivity")
    assert scanned.train.methods[0].allocation == "uniform"
    assert "allocation=uniform where prune has sensitivity" in scanned.cautions[0]
    with pytest.raises(RecipeError, match=f"prune.budget has agreement: give {name} a budget of its own"):
        recipe_of(name, budget={"speedup": 1.5, "agreement": 0.9})
    fast = recipe_of(name, budget={"speedup": 1.5})
    assert fast.train.methods[0].budget == {"speedup": 1.5}
    assert "what widths cost as measured before the training" in fast.cautions[0]
    with pytest.raises(RecipeError, match=f"{name} plans the cut that follows, and none does: use it in train"):
        recipe_of(name, {"epochs": 1, "lr": 0.1, "methods": [name]})
    own = recipe_of({"method": name, "budget": {"macs": 0.4}}, budget={"speedup": 1.5})
    assert own.train.methods[0].budget == {"macs": 0.4}


@pytest.mark.parametrize("name", ["greg", "soft"])
def test_a_method_that_plans_needs_a_budget_where_no_recipe_has_one(tmp_path, name):
    spec = TrainSpec(epochs=1, batch_size=32, lr=0.1, methods=[name])
    with pytest.raises(RecipeError, match=f"method {name} plans the cut that follows, and none does: give it a budget"):
        fit(network(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c")


@pytest.mark.parametrize(("multiple", "zero"), [(1, 2), (4, 4)])
def test_widths_are_multiples_of_the_recipes_runtime(tmp_path, multiple, zero):
    spec = TrainSpec(epochs=1, batch_size=64, lr=0.01, methods=[{"method": "soft", "budget": {"channels": 0.8}}])
    cut = ComingCut("graph", {"conv": multiple, "depthwise": multiple, "linear": multiple})
    model = fit(network(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c", cut=cut)
    assert len(zeros(model[0])) == zero  # of 8


def test_a_run_removes_the_units_that_its_training_has_zeroed(tmp_path):
    shown = io.StringIO()
    runner = runner_of(recipe_of("soft"), Reporter(Console(file=shown, width=200)), Artefacts(tmp_path))
    plan, dense = runner.value("plan"), runner.value("dense")
    zero = zero_units(dense, runner.value("graph"))
    assert sum(int(units.sum()) for units in zero.values()) > 50
    for name, units in zero.items():
        entry = plan.groups.get(name, {"units": len(units), "kept": range(len(units))})
        assert units.nonzero()[:, 0].tolist() == sorted({*range(entry["units"])} - {*entry["kept"]})
    assert not any("filters are zero" in note for note in plan.notes)


def test_a_plan_that_keeps_zero_filters_says_so():
    model = Residual().eval()
    with torch.no_grad():
        model.inner.weight[[1, 3]] = 0
        model.conv1.weight[2] = 0  # conv2's filter of the same unit is not zero
    graph = sp.trace(model, samples()[0][:1])
    notes = {}
    for budget in (0.5, 0.99):
        for criterion in ("l2", "random"):
            scores = sp.score(graph, criterion, seed=3)
            plan = sp.plan(graph, scores, {"channels": budget}, align=1)
            kept = {*plan.groups["inner"]["kept"]} & {1, 3}
            notes[budget, criterion] = (len(kept), note_zero_units(graph, plan))
    assert notes[0.5, "l2"] == (0, [])
    number, (line,) = notes[0.99, "l2"]
    assert (
        line == f"{number} of the 2 units whose filters are zero stay: the budget and the multiples of widths "
        "leave room for them"
    )
    number, lines = notes[0.5, "random"]
    assert number
    assert lines == [
        f"{number} of the 2 units whose filters are zero stay: random ranks others below them, and l1 or l2 would not"
    ]
