"""Methods that move a fixed number of active units about (RigL, surgery, Deep R), against their definitions."""

import math

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.calibration import Batch
from structprune.errors import RecipeError
from structprune.ops import Inputs
from structprune.recipe import TrainSpec
from structprune.tasks.building import make_task
from structprune.train import fit
from structprune.train.masked_units import MaskedUnits, hold_at_zero
from structprune.train.method import Training
from structprune.train.methods.deep_r import DeepR, DeepRSpec
from structprune.train.methods.rigl import Rigl, RiglSpec
from structprune.train.methods.splicing import Splicing, SplicingSpec
from structprune.train.zero_units import zero_units
from tests.train.small_training import assert_half_is_zero_and_goes, equal, interrupted, network, samples
from tests.train.test_sparse_methods import Residual

PLAN = {"budget": {"channels": 0.5}, "align": 1}
BATCH = Batch(Inputs((samples()[0],), {}), samples()[1])


def begun(method, model, optimizer, epochs=4, updates=10):
    """A method at the start of a training."""
    method.start(training_of(model, optimizer, epochs, updates))
    return method


def training_of(model, optimizer, epochs=4, updates=10):
    example = Inputs((samples()[0][:1],), {})
    return Training(model, optimizer, make_task(), epochs, updates, 0, lambda: example, lambda: iter([BATCH]))


def taken_in(model):
    """What layers have of each unit: the kernels that take the channels of conv1 and conv2, and those of inner, in."""
    stream = torch.cat([model.inner.weight.transpose(0, 1).flatten(1), model.head.weight.T], 1)
    return {"conv1": stream, "inner": model.conv2.weight.transpose(0, 1).flatten(1)}


def gradients_taken_in(model):
    stream = torch.cat([model.inner.weight.grad.transpose(0, 1).flatten(1), model.head.weight.grad.T], 1)
    return {"conv1": stream, "inner": model.conv2.weight.grad.transpose(0, 1).flatten(1)}


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_what_an_optimiser_keeps_of_units_at_zero_is_zero_too(name):
    model = Residual()
    optimizer = create_optimizer_v2(model, opt=name, lr=0.1)
    masks = MaskedUnits(training_of(model, optimizer), RiglSpec(**PLAN))
    F.cross_entropy(model(samples()[0]), samples()[1]).backward()
    optimizer.step()
    hold_at_zero(masks.units, masks.gates(), optimizer)
    kept = [
        value.transpose(0, 1).flatten(1)
        for value in optimizer.state[model.conv2.weight].values()
        if value is not None and value.numel() > 1
    ]
    assert len(kept) == (1 if name == "momentum" else 2)
    for values in kept:
        assert torch.equal((values != 0).any(1), masks.active["inner"])


def test_the_share_that_rigl_changes_falls_as_a_cosine():
    method = begun(
        Rigl(RiglSpec(fraction=0.4, end=0.5, **PLAN)), model := Residual(), torch.optim.SGD(model.parameters())
    )
    shares = []
    for updates in (0, 5, 10, 20):
        method.updates = updates
        shares.append(method.fraction())
    expected = [0.4 / 2 * (1 + math.cos(math.pi * t / 20)) for t in (0, 5, 10, 20)]
    assert shares == pytest.approx(expected)
    assert shares[0] == pytest.approx(0.4)
    assert shares[2] == pytest.approx(0.2)
    assert shares[3] == pytest.approx(0)


def test_rigl_drops_by_size_and_grows_by_dense_gradients_in_place_of_an_update():
    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    method = begun(Rigl(RiglSpec(interval=3, fraction=1.0, end=1.0, **PLAN)), model, optimizer)
    for update in range(4):
        batch = method.mix(BATCH)
        optimizer.zero_grad()
        F.cross_entropy(batch.inputs.call(model), batch.labels).backward()
        before = {name: active.clone() for name, active in method.masks.active.items()}
        for name, kernels in taken_in(model).items():
            assert ((kernels != 0).any(1) == before[name]).all()  # inactive ones are zero
        sizes = {name: kernels.norm(dim=1) for name, kernels in taken_in(model).items()}
        slopes = {name: kernels.norm(dim=1) for name, kernels in gradients_taken_in(model).items()}
        share = method.fraction()
        method.after_backward(model)
        if update == 3:
            break
        assert all(torch.equal(before[name], active) for name, active in method.masks.active.items())
        optimizer.step()
        method.after_step(model)
    for name, active in before.items():
        number = min(int(share * int(active.sum())), int((~active).sum()))
        assert number
        remaining = active.clone()
        remaining[torch.where(active, sizes[name], torch.inf).argsort()[:number]] = False
        grown = torch.where(remaining, -torch.inf, slopes[name]).argsort(descending=True)[:number]
        expected = remaining.clone()
        expected[grown] = True
        assert torch.equal(method.masks.active[name], expected)
        new = grown[~active[grown]]
        assert not taken_in(model)[name][new].any()
        moments = optimizer.state[model.conv2.weight]["momentum_buffer"].transpose(0, 1)
        if name == "inner":
            assert not moments[new].any()
            assert moments[remaining].any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_was_cut_by_surgery_goes_on_learning_by_the_gradient_of_the_masked_network():
    model, masked = Residual(), Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = begun(Splicing(SplicingSpec(**PLAN)), model, optimizer)
    batch = method.mix(BATCH)
    active = method.masks.active
    assert (int(active["inner"].sum()), int(active["conv1"].sum())) == (3, 3) or not active["inner"].all()
    F.cross_entropy(batch.inputs.call(model), batch.labels).backward()
    with torch.no_grad():
        masked.conv2.weight.mul_(active["inner"][None, :, None, None])
        masked.inner.weight.mul_(active["conv1"][None, :, None, None])
        masked.head.weight.mul_(active["conv1"])
    F.cross_entropy(masked(samples()[0]), samples()[1]).backward()
    method.after_backward(model)
    for (name, parameter), other, start in zip(
        model.named_parameters(), masked.parameters(), Residual().parameters(), strict=True
    ):
        assert torch.equal(parameter, start), name  # without masks, and dense gradients
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)
    assert model.conv2.weight.grad[:, ~active["inner"]].any()


def test_surgery_cuts_and_splices_at_two_sizes():
    model = Residual()
    method = begun(Splicing(SplicingSpec(margin=0.2, **PLAN)), model, torch.optim.SGD(model.parameters()))
    width = method.masks.widths["inner"]

    def sized(*sizes):
        with torch.no_grad():
            for unit, size in enumerate(sizes):
                model.conv2.weight[:, unit] *= size / model.conv2.weight[:, unit].norm()
        method.mix(BATCH)
        method.after_backward(model)
        return method.masks.active["inner"].tolist()

    assert width in (2, 3)
    large = [5.0, 5.0, 5.0][:width]
    start = sized(*large, *[0.1] * (5 - width))
    assert start == [True] * width + [False] * (5 - width)
    near = [5.0] * (width - 1) + [1.95, 2.05] + [0.1] * (4 - width)
    assert sized(*near) == start  # the size between is 2: within 1.6 and 2.4 all stays as it was
    far = [5.0] * (width - 1) + [1.0, 3.0] + [0.1] * (4 - width)
    assert sized(*far) == [True] * (width - 1) + [False, True] + [False] * (4 - width)


def test_the_units_that_surgery_trained_with_stay_where_an_epoch_ends():
    model = Residual()
    method = begun(Splicing(SplicingSpec(margin=0.9, **PLAN)), model, torch.optim.SGD(model.parameters()))
    active = method.masks.active["inner"]
    smaller = torch.arange(5) >= 5 - method.masks.widths["inner"]
    active.copy_(smaller)
    with torch.no_grad():
        for unit in range(5):
            model.conv2.weight[:, unit] *= (6 - unit) / model.conv2.weight[:, unit].norm()
    method.after_epoch(model.train(), 1)
    assert torch.equal((model.conv2.weight != 0).any(3).any(2).any(0), smaller)
    method.mix(BATCH)  # training goes on with the weights of all
    method.masks.units.take_out()
    assert (model.conv2.weight != 0).all()


def test_deep_r_walks_active_gates_and_wakes_dormant_units_at_zero():
    model, options = Residual(), {"lr": 0.5, "strength": 0.2, "temperature": 0.04}
    method = begun(DeepR(DeepRSpec(**options, **PLAN)), model, torch.optim.SGD(model.parameters()))
    active, gate = method.masks.active["inner"], method.gates["inner"]
    width = int(active.sum())
    assert torch.equal(gate.detach(), active.float())
    batch = method.mix(BATCH)
    loss = F.cross_entropy(batch.inputs.call(model), batch.labels)
    loss.backward()
    method.after_backward(model)
    generator = torch.Generator().manual_seed(0)
    for name in method.gates:  # the gates of one group after the other
        noise = torch.randn(len(method.gates[name]), generator=generator)
        torch.randperm(len(noise), generator=generator)
        if name == "inner":
            break
    by_hand = Residual()
    gates = {
        name: start.clone().float().requires_grad_()
        for name, start in begun(
            DeepR(DeepRSpec(**options, **PLAN)), Residual(), torch.optim.SGD(model.parameters())
        ).masks.active.items()
    }
    stream, inner = gates["conv1"][:, None, None], gates["inner"][:, None, None]
    x = by_hand.bn1(by_hand.conv1(samples()[0])).relu()
    x = x + by_hand.bn2(by_hand.conv2(by_hand.bn0(by_hand.inner(x * stream)).relu() * inner))
    F.cross_entropy(by_hand.head((x * stream).mean((2, 3))), samples()[1]).backward()
    step = -0.5 * (gates["inner"].grad + 0.2) + math.sqrt(2 * 0.5 * 0.04) * noise
    walked = gates["inner"].detach() + step
    stayed = (gates["inner"] > 0) & (walked >= 0)
    torch.testing.assert_close(gate.detach()[stayed], walked[stayed], rtol=1e-4, atol=1e-5)
    assert not gate.detach()[~stayed].any()
    assert int(method.masks.active["inner"].sum()) == width
    assert method.masks.active["inner"][stayed].all()


def test_deep_r_draws_who_wakes():
    model = Residual()
    method = begun(DeepR(DeepRSpec(temperature=0, strength=0, **PLAN)), model, torch.optim.SGD(model.parameters()))
    active, counts = method.masks.active["inner"], torch.zeros(5)
    width = int(active.sum())
    for trial in range(300):
        active.copy_(torch.arange(5) < width)
        with torch.no_grad():
            method.gates["inner"].copy_(active.float())
        gradient = 100.0 * (torch.arange(5) == 0)  # the first goes
        order = torch.randperm(5, generator=torch.Generator().manual_seed(trial))
        with torch.no_grad():
            method.walk("inner", gradient, torch.zeros(5), order)
        counts += active
    number = 5 - width + 1  # dormant ones, with the one that has just gone
    assert counts[1:width].tolist() == [300] * (width - 1)
    others = torch.cat([counts[:1], counts[width:]])
    assert (others / 300 - 1 / number).abs().max() < 4 * math.sqrt((1 / number) * (1 - 1 / number) / 300)


@pytest.mark.parametrize("method", ["rigl", "splicing"])
def test_the_cut_removes_exactly_the_inactive_units(tmp_path, method):
    images, labels = samples()
    options = {"interval": 2} if method == "rigl" else {}
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[{"method": method, **options, **PLAN}])
    trained = fit(Residual(), TensorDataset(images, labels), spec, seed=0, checkpoint=tmp_path / "c")
    assert_half_is_zero_and_goes(trained)


class Normalised(torch.nn.Module):
    """A stream that a LayerNorm takes its statistics over, which can have no masks, and an MLP beside it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.norm, self.up = torch.nn.Linear(36, 12), torch.nn.LayerNorm(12), torch.nn.Linear(12, 16)
        self.down, self.head = torch.nn.Linear(16, 12), torch.nn.Linear(12, 3)

    def forward(self, x):
        x = self.enter(x.flatten(1))
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


@pytest.mark.parametrize("method", ["rigl", "splicing", "deep_r", "nest", "dsd"])
@pytest.mark.parametrize("ignored", [False, True])
def test_channels_that_the_cut_takes_without_a_mask_are_told(tmp_path, method, ignored):
    options = {"dsd": {"end": "slim"}, "nest": {"interval": 2}}.get(method, {})
    options |= {"ignore": ["enter"]} if ignored else {}
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[{"method": method, **options, **PLAN}])
    notes = []
    fit(Normalised(), TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c", tell=notes.append)
    assert [note.endswith("whole): enter") for note in notes if "has no masks" in note] == ([] if ignored else [True])


def in_blocks():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 12, 3), torch.nn.BatchNorm2d(12), torch.nn.ReLU(),
        torch.nn.Conv2d(12, 8, 3, groups=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(32, 3),
    )  # fmt: skip


@pytest.mark.parametrize(("method", "options"), [("rigl", {"interval": 2, "fraction": 1.0}), ("splicing", {})])
def test_blocks_of_a_grouped_convolution_keep_alike_many_units(tmp_path, method, options):
    images, labels = samples()
    spec = TrainSpec(epochs=4, batch_size=32, lr=0.02, methods=[{"method": method, **options, **PLAN}])
    trained = fit(in_blocks(), TensorDataset(images, labels), spec, seed=0, checkpoint=tmp_path / "c")
    graph = sp.trace(trained.eval(), images[:1])
    zero = zero_units(trained, graph)
    assert [int(zero["0"][:6].sum()), int(zero["0"][6:].sum())] == [3, 3]
    assert [int(zero["3"][:4].sum()), int(zero["3"][4:].sum())] == [2, 2]
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, align=1)
    torch.testing.assert_close(sp.prune(trained, plan)(images), trained(images), rtol=1e-4, atol=1e-5)


def test_deep_r_wakes_a_unit_in_the_block_that_one_has_gone_from():
    model = in_blocks()
    method = begun(DeepR(DeepRSpec(temperature=0, strength=0, **PLAN)), model, torch.optim.SGD(model.parameters()))
    active = method.masks.active["3"]
    assert [int(active[:4].sum()), int(active[4:].sum())] == [2, 2]
    gradient = 100.0 * (active & (torch.arange(8) < 4))  # both of the first block go
    with torch.no_grad():
        method.walk("3", gradient, torch.zeros(8), torch.arange(8).flip(0))
    assert [int(active[:4].sum()), int(active[4:].sum())] == [2, 2]


@pytest.mark.parametrize("method", ["deep_r", "rigl", "splicing"])
def test_an_interrupted_training_ends_the_same(tmp_path, method):
    options = {"rigl": {"interval": 2}, "splicing": {"decay": 0.5}, "deep_r": {"temperature": 0.3}}[method]
    spec = TrainSpec(epochs=3, batch_size=32, lr=0.02, methods=[{"method": method, **options, **PLAN}])
    whole = fit(network(), TensorDataset(*samples()), spec, seed=5, checkpoint=tmp_path / "whole")
    assert equal(whole, interrupted(spec, tmp_path, at=9))


@pytest.mark.parametrize("method", ["deep_r", "rigl", "splicing"])
def test_what_is_refused(tmp_path, method):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    spec = TrainSpec(epochs=1, batch_size=32, lr=0.1, methods=[{"method": method, **PLAN}])
    with pytest.raises(RecipeError, match=f"method {method} needs channels that can go"):
        fit(plain, TensorDataset(*samples()), spec, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=f"model_ema averages the weights that method {method} sets"):
        TrainSpec(epochs=1, lr=0.1, model_ema=True, methods=[method])
    with pytest.raises(ValueError, match=f"methods soft and {method} each set weights that the other would undo"):
        TrainSpec(epochs=1, lr=0.1, methods=["soft", method])
