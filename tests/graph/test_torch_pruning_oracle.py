"""torch-pruning as an independent oracle: on networks that it handles, its groups and its surgery are ours.

Its graph comes from autograd and its index mappings share no code with ours. Left out, with the reason:

- grouped convolutions (regnetx, resnext): it removes the same place from every block and keeps the number of blocks.
  Ours removes whole blocks where there are at least as many of them as channels in one; else each block makes its
  own choice.
- channel shuffle: it takes the transposition for elementwise, so the permutation is lost and the network wrong.
- attention: it cuts heads only with `num_heads` given by hand and a patched forward.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import structprune as sp  # before timm and torch-pruning: it declares torchvision's op names
from structprune.graph import DependencyGraph, Group

timm = pytest.importorskip("timm")
tp = pytest.importorskip("torch_pruning")

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
Coupling = dict[tuple[str, int], list[int]]  # {(state_dict key, axis): positions}


class Flatten(nn.Module):
    """A channel becomes 3 × 4 neighbouring inputs of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 10, 3, stride=2, padding=1), nn.BatchNorm2d(10)
        self.conv2, self.bn2 = nn.Conv2d(10, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.fc1, self.head = nn.Linear(7 * 3 * 4, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.head(F.relu(self.fc1(F.adaptive_avg_pool2d(x, (3, 4)).flatten(1))))


class Concat(nn.Module):
    """Dense connections: each layer reads all channels made before it, at other offsets; then a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(10), nn.Conv2d(10, 5, 3, padding=1, bias=False)
        self.norm3, self.head = nn.BatchNorm2d(15), nn.Linear(15 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(F.relu(self.norm1(x)))], 1)
        x = torch.cat([self.conv2(F.relu(self.norm2(x))), x], 1)
        return self.head(F.adaptive_avg_pool2d(self.norm3(x), 2).flatten(1))


class Residual(nn.Module):
    """An identity shortcut, then a projection: the layers on both sides of each sum are one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
        self.project, self.conv3, self.head = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 3, padding=1), nn.Linear(12, 5)
        self.slope = nn.PReLU(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.conv2(self.slope(self.conv1(x))))
        x = F.relu(self.project(x) + self.conv3(x))
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """Transposed convolution, whose filters lie on axis 1, and a skip by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 9, 3, stride=2, padding=1)
        self.up, self.head = nn.ConvTranspose2d(9, 7, 2, stride=2), nn.Conv2d(13, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down1(x))
        return self.head(torch.cat([self.up(F.relu(self.down2(skip))), skip], 1))


class Split(nn.Module):
    """One half of the channels gates the other: position i of both halves is one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 14, 3, stride=4), nn.BatchNorm2d(14)
        self.conv2, self.head = nn.Conv2d(7, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.norm(self.conv1(x)).chunk(2, dim=1)
        return self.head(F.relu(self.conv2(values * gate.sigmoid())).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{net.__name__: net for net in (Flatten, Concat, Residual, UNet, Split)},
    **{
        name: functools.partial(timm.create_model, name)
        for name in ("resnet18", "resnet26d", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0")
    },
    "vgg11_bn": functools.partial(timm.create_model, "vgg11_bn", mlp_ratio=1 / 32),  # fewer parameters, same structure
    "densenet": functools.partial(timm.create_model, "densenet121", growth_rate=8, block_config=(2, 3, 2)),
}


@functools.cache
def prepared(name: str) -> tuple[nn.Module, Tensor, DependencyGraph]:
    """The network with BatchNorm values that hide nothing, its input, and our graph of it."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.1)
    x = torch.randn(1, 3, 64, 64)
    return model, x, sp.trace(model, x)


def their_graph(model: nn.Module, x: Tensor) -> tp.DependencyGraph:
    return tp.DependencyGraph().build_dependency(model, example_inputs=x, verbose=False)


def their_group(theirs: tp.DependencyGraph, name: str, filters: list[int]) -> tp.dependency.Group:
    module = theirs.model.get_submodule(name)
    return theirs.get_pruning_group(module, theirs.get_pruner_of_module(module).prune_out_channels, filters)


def their_coupling(theirs: tp.DependencyGraph, name: str, filters: list[int]) -> Coupling:
    """What torch-pruning removes with these filters, in the terms of the parameters and buffers it slices."""
    found: dict[tuple[str, int], set[int]] = {}
    paths = {module: path for path, module in theirs.model.named_modules()}
    for dependency, positions in their_group(theirs, name, filters):
        module = dependency.target.module
        if module not in paths:
            continue  # a node for an operator: it has no parameters
        axis = 0
        keys = [k for k in ("weight", "bias", "running_mean", "running_var") if getattr(module, k, None) is not None]
        if isinstance(module, LAYERS):
            groups = getattr(module, "groups", 1)
            depthwise = groups > 1 and groups == module.out_channels
            if not depthwise:
                filters = theirs.is_out_channel_pruning_fn(dependency.handler)
                axis = int(filters == isinstance(module, nn.ConvTranspose2d))
                if not filters:
                    keys = ["weight"]
                    if groups > 1:  # its positions count through all blocks
                        positions = [position % module.weight.shape[1] for position in positions]
        for key in keys:
            found.setdefault((f"{paths[module]}.{key}", axis if key == "weight" else 0), set()).update(positions)
    return {place: sorted(positions) for place, positions in found.items()}


def our_coupling(group: Group, unit: int) -> Coupling:
    found = {(s.key, s.dim): np.flatnonzero((s.index == unit).any(axis=1)).tolist() for s in group.slices}
    return {place: positions for place, positions in found.items() if positions}


def filters_of(group: Group, units: np.ndarray) -> list[int]:
    """The filters of the group's leading layer that make these units."""
    return np.flatnonzero(np.isin(group.leading.index, units).any(axis=1)).tolist()


@pytest.mark.parametrize("name", NETWORKS)
def test_units_couple_the_same_positions(name):
    model, x, graph = prepared(name)
    theirs = their_graph(model, x)
    for group in graph.groups:
        for unit in {0, group.units // 2, group.units - 1}:
            expected = their_coupling(theirs, group.name, filters_of(group, np.array([unit])))
            assert our_coupling(group, unit) == expected, f"{group.name}, unit {unit}"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_layers_can_be_pruned(name):
    """No group of theirs is missed: all filters that they can remove, but those of the output, belong to a unit."""
    model, x, graph = prepared(name)
    theirs = their_graph(model, x)
    paths = {module: path for path, module in model.named_modules()}
    output = [module for module in model.modules() if isinstance(module, LAYERS)][-1:]
    expected = set()
    for their in theirs.get_all_groups(ignored_layers=output, root_module_types=LAYERS):
        for dependency, positions in their:
            module = dependency.target.module
            if isinstance(module, LAYERS) and theirs.is_out_channel_pruning_fn(dependency.handler):
                assert len(positions) == theirs.get_out_channels(module)
                expected.add(paths[module])
    ours = {s.key.rpartition(".")[0] for g in graph.groups for s in g.slices if s.role in ("filter", "passed")}
    assert ours == expected
    for group in graph.groups:
        assert all((s.index >= 0).any(axis=1).all() for s in group.slices if s.role in ("filter", "passed"))
    assert not graph.barriers


@pytest.mark.parametrize("name", NETWORKS)
def test_the_slim_networks_are_equal(name):
    """torch-pruning removes what our plan removes, group after group: all tensors and the outputs are equal."""
    model, x, graph = prepared(name)
    rng = np.random.default_rng(0)
    scores = sp.score(graph, lambda group: torch.from_numpy(rng.random(group.units)))
    plan = sp.plan(graph, scores, {"macs": 0.6}, align=1)
    ours = sp.prune(model, plan)

    other = copy.deepcopy(model)
    theirs = their_graph(other, x)
    for group in graph.groups:
        removed = np.delete(np.arange(group.units), plan.groups[group.name]["kept"])
        if len(removed):
            their_group(theirs, group.name, filters_of(group, removed)).prune()
    expected = other.state_dict()
    state = ours.state_dict()
    assert {key: tuple(t.shape) for key, t in state.items()} == {key: tuple(t.shape) for key, t in expected.items()}
    assert [key for key in state if not torch.equal(state[key], expected[key])] == []
    with torch.no_grad():
        torch.testing.assert_close(ours(x), other(x))
    assert sum(p.numel() for p in other.parameters()) == plan.params["slim"]
