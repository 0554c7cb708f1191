"""Random inputs: they look like the example, and each kind of tensor keeps to what the network knows."""

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.calibration.random_inputs import random_batches
from structprune.criteria import NothingToScan
from structprune.ops import Inputs


def drawn(example, count=64, **options):
    """All random tensors of each argument, one behind the other."""
    batches = random_batches(Inputs.of(example), count, seed=0, **options)
    return [torch.cat(parts) for parts in zip(*(batch.inputs.flat() for batch in batches), strict=True)]


def test_maps_have_the_means_and_deviations_of_each_channel_and_fall_with_frequency():
    generator = torch.Generator().manual_seed(1)
    means, deviations = torch.tensor([0.5, -2.0, 30.0]), torch.tensor([0.1, 3.0, 7.0])
    example = torch.randn(2, 3, 32, 32, generator=generator) * deviations[:, None, None] + means[:, None, None]
    (maps,) = drawn(example, 512)
    assert maps.shape == (512, 3, 32, 32)
    assert maps.dtype == example.dtype
    off = (maps.mean((0, 2, 3)) - example.mean((0, 2, 3))).abs() / deviations
    assert float(off.max()) < 0.15
    assert maps.std((0, 2, 3)) == pytest.approx(example.std((0, 2, 3)), rel=0.1)
    power = torch.fft.rfft2((maps - means[:, None, None]) / deviations[:, None, None]).abs().square().mean((0, 1))
    assert power[0, 2] / power[0, 8] == pytest.approx(16, rel=0.3)  # amplitudes are as 1 to 4


def test_other_tensors_are_normal_or_drawn_from_the_examples_own():
    ids, mask = torch.tensor([[5, 7, 7, 900]]), torch.tensor([[True, True, False, True]])
    example = {"ids": ids, "mask": mask, "tokens": torch.full((1, 4, 6), 3.0), "scale": 2.0, "step": torch.tensor(4)}
    example |= {"padding": torch.tensor([[1.0, 1.0, 0.0, 1.0]]), "causal": torch.ones(4, 4).tril().bool()}
    example |= {"additive": torch.tensor([[[[0.0, -torch.inf]]]]), "temperature": torch.tensor([0.7])}
    batches = random_batches(Inputs.of(example), 40, seed=0)
    assert [batch.images for batch in batches] == [16, 16, 16]
    for batch in batches:
        given = batch.inputs.kwargs
        assert given["ids"].shape == (16, 4)
        assert set(given["ids"].unique().tolist()) <= {5, 7, 900}
        assert given["mask"].dtype == torch.bool
        assert set(given["padding"].unique().tolist()) <= {0.0, 1.0}
        assert set(given["additive"].unique().tolist()) <= {0.0, -torch.inf}
        assert given["temperature"].tolist() == pytest.approx([0.7] * 16)
        assert torch.equal(given["causal"], example["causal"])  # no row for each sample: as it is
        assert given["scale"] == 2.0
        assert int(given["step"]) == 4
        assert abs(float(given["tokens"].mean())) < 0.3  # a constant tells no deviation: 0 and 1
        assert 0.8 < float(given["tokens"].std()) < 1.2
    assert not torch.equal(batches[0].inputs.kwargs["tokens"], batches[1].inputs.kwargs["tokens"])
    again = random_batches(Inputs.of(example), 40, seed=0)
    assert torch.equal(batches[0].inputs.kwargs["tokens"], again[0].inputs.kwargs["tokens"])
    other = random_batches(Inputs.of(example), 40, seed=1)
    assert not torch.equal(batches[0].inputs.kwargs["tokens"], other[0].inputs.kwargs["tokens"])


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 5, 1), (1, 3, 1, 6), (2, 7), (1, 4, 9)])
def test_small_and_odd_sizes(shape):
    (x,) = drawn(torch.zeros(shape))
    assert x.shape == (64, *shape[1:])
    assert torch.isfinite(x).all()
    assert 0.5 < float(x.std()) < 1.5


class OneByOne(nn.Module):
    """Takes single images alone."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        return self.out(self.two(self.one(x).relu()).relu().mean((2, 3)).reshape(1, 8))


class Particular(OneByOne):
    """Takes no negative numbers."""

    def forward(self, x):
        if bool((x < 0).any()):
            raise ValueError("a negative pixel")
        return super().forward(x)


@pytest.mark.parametrize(("count", "sizes"), [(2, [1, 1]), (6, [3, 3]), (32, [16, 16]), (33, [16, 16, 16])])
def test_there_are_about_as_many_as_are_asked_for(count, sizes):
    assert [batch.images for batch in random_batches(Inputs.of(torch.randn(1, 3, 8, 8)), count, seed=0)] == sizes


class Counting(OneByOne):
    """Counts its calls in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.out(self.two(self.one(x).relu()).relu().mean((2, 3)))


class Otherwise(Counting):
    """Takes another path for more than two images."""

    def forward(self, x):
        x = self.one(x).relu()
        return self.out(self.two(x.relu() if len(x) > 2 else x).relu().mean((2, 3)))


@pytest.mark.parametrize("network", [Counting, Otherwise])
def test_the_network_stays_as_it_was(network):
    model = network().eval()
    graph = sp.trace(model, torch.rand(1, 3, 10, 10))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scan = sp.sensitivity(graph, sp.score(graph, "l1"), draws=4)
    assert scan.losses.keys() == {"one", "two"}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Overflowing(OneByOne):
    """Gives infinities for whatever is not the example."""

    def forward(self, x):
        return self.out(self.two(self.one(x).relu()).relu().mean((2, 3))) / 0.0


def test_losses_that_are_no_numbers_are_no_scan():
    graph = sp.trace(Overflowing().eval(), torch.rand(1, 3, 10, 10))
    with pytest.raises(NothingToScan, match="is no finite number, whichever group is pruned"):
        sp.sensitivity(graph, sp.score(graph, "l1"))


def test_one_logit_is_a_number_and_no_class():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)).eval()
    graph = sp.trace(model, torch.rand(1, 3, 10, 10))
    scan = sp.sensitivity(graph, sp.score(graph, "l1"))
    assert scan.losses["0"][2] > scan.losses["0"][7] > 0  # the probability of one class of one is always 1


def test_a_network_that_takes_one_image_gets_one_at_a_time():
    x = torch.rand(1, 3, 10, 10)
    graph = sp.trace(OneByOne().eval(), x)
    scan = sp.sensitivity(graph, sp.score(graph, "l1"), draws=6, ratios=[0.5])
    assert scan.inputs == "random"
    assert sorted(scan.losses["one"]) == [4, 8]
    assert scan.losses["one"][4] > 0 == scan.losses["one"][8]
    again = sp.sensitivity(graph, sp.score(graph, "l1"), random_batches(graph.inputs, 6, 0, alike=True), ratios=[0.5])
    assert again.inputs == "samples"
    assert again.losses == scan.losses


def test_a_network_that_random_inputs_break_says_so():
    graph = sp.trace(Particular().eval(), torch.rand(1, 3, 10, 10))
    with pytest.raises(NothingToScan, match=r"does not run on random inputs .*a negative pixel.*: give calibration"):
        sp.sensitivity(graph, sp.score(graph, "l1"))
