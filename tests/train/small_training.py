"""A network of 8 filters and 192 images of three classes that it learns in a second, and a training that is killed."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.train import fit
from structprune.train.zero_units import zero_units


def samples():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (192,), generator=generator)
    images = torch.randn(192, 1, 6, 6, generator=generator) + 2 * labels[:, None, None, None]
    return images, labels


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(128, 3)
    )


def equal(one, other):
    """Whether two networks have the same weights: to the last bit on a CPU; a GPU sums in another order each time."""
    same = partial(torch.allclose, rtol=1e-3, atol=1e-4) if torch.cuda.is_available() else torch.equal
    return all(same(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items())


def interrupted(spec, folder, at, **options):
    """A training that is killed at a step and goes on."""

    def interrupt(step, steps, shown):
        if step == at:
            raise KeyboardInterrupt

    options = {"seed": 5, "checkpoint": folder / "part", **options}
    with pytest.raises(KeyboardInterrupt):
        fit(network(), TensorDataset(*samples()), spec, progress=interrupt, **options)
    return fit(network(), TensorDataset(*samples()), spec, **options)


def assert_half_is_zero_and_goes(trained):
    """A plan by L1 that keeps half of the channels removes exactly the units at zero, and the outputs stay."""
    images = samples()[0]
    graph = sp.trace(trained.eval(), images[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.5}, align=1)
    zero = zero_units(trained, graph)
    for name, entry in plan.groups.items():
        gone = sorted({*range(entry["units"])} - {*entry["kept"]})
        assert gone
        assert zero[name].nonzero()[:, 0].tolist() == gone
    torch.testing.assert_close(sp.prune(trained, plan)(images), trained(images), rtol=1e-4, atol=1e-5)
