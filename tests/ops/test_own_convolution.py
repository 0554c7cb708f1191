"""CONTRIBUTING's convolution of one's own, whose record stands in one file: it gets all that PyTorch's get."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.calibration import WritableNetwork, sample
from structprune.ops import Inputs
from structprune.ops.record import OPS
from structprune.suites.equality import assert_slim_equals_masked

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
(BLOCK,) = re.findall(r"```python\n# own_convolution.py\n(.*?)```", TEXT, re.DOTALL)
DATA = torch.randn(24, 3, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The block as a module; the record, the op and its meaning in ONNX are gone at the end."""
    file, before = tmp_path_factory.mktemp("own") / "own_convolution.py", dict(OPS)
    file.write_text(BLOCK)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    torch.onnx.unregister_custom_op_symbolic("own::conv_same", 17)
    OPS.clear()
    OPS.update(before)
    del sys.modules[file.stem]


class PaddedFirst(nn.Conv2d):
    """The same layer of PyTorch's ops alone."""

    def forward(self, x):
        sizes = zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        lacking = [max(0, -(-n // stride) * stride - stride + kernel - n) for n, stride, kernel in sizes]
        pads = [part for n in reversed(lacking) for part in (n // 2, n - n // 2)]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, groups=self.groups)


class Net(nn.Module):
    """Each layer is of `kind`, but for the head: one with a stride, a depthwise one, two of several groups."""

    def __init__(self, kind):
        super().__init__()
        self.enter, self.bn = kind(3, 16, 3, stride=2, bias=False), nn.BatchNorm2d(16)
        self.apart, self.blocks = kind(16, 16, 3, groups=16), kind(16, 24, 3, groups=2)
        self.last, self.head = kind(24, 12, 2), nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu(self.apart(F.relu(self.bn(self.enter(x)))))
        return self.head(F.relu(self.last(F.relu(self.blocks(x)))).mean((2, 3)))


def net(kind):
    torch.manual_seed(1)
    model = Net(kind).eval()
    with torch.no_grad():
        model.bn.running_mean.normal_(0, 0.3)
        model.bn.running_var.uniform_(0.5, 1.5)
        model.bn.bias.normal_()
    return model


def cut(model, form="module"):
    graph = sp.trace(model, DATA[:1], form=form)
    steps = {"conv": 4, "depthwise": 4}
    widths = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.4}, align=steps).widths
    scores = sp.score(graph, "thinet", data=DATA, widths=widths)
    return scores, sp.plan(graph, scores, {"macs": 0.4}, align=steps)


@pytest.mark.parametrize("form", ["module", "graph"])
def test_it_is_pruned(own, form):
    graph = assert_slim_equals_masked(net(own.ConvSame), DATA[:2], form=form)
    assert list(graph.barriers) == []
    assert [group.name for group in graph.groups] == ["enter", "blocks", "last"]


def test_its_windows_times_its_weights_are_its_outputs(own):
    for layer in (own.ConvSame(6, 4, 3, stride=2), own.ConvSame(6, 4, (2, 5), stride=3)):
        x = torch.randn(2, 6, 8, 7)
        (known,) = WritableNetwork.of(layer, Inputs.of(x)).layers
        rows = sample(known.read((x, layer.weight, layer.bias, layer.stride[0])), 99, torch.Generator())
        made = rows.windows.flatten(1) @ layer.weight.flatten(1).mT + layer.bias
        torch.testing.assert_close(made, rows.outputs(layer(x), 1))


@pytest.mark.parametrize("form", ["module", "graph"])
def test_it_is_aligned_ranked_and_refitted_as_pytorchs_own(own, form):
    class Numbered(own.ConvSame):
        """After as many calls as `PaddedFirst`: which rows are drawn goes by a layer's number."""

        def forward(self, x):
            return super().forward(x.contiguous())

    model, other = net(Numbered), net(PaddedFirst)
    (scores, plan), (scores_there, plan_there) = cut(model, form), cut(other, form)
    for name, values in scores_there.values.items():
        assert scores.values[name].tolist() == pytest.approx(values.tolist(), rel=1e-6)
    assert plan.groups == plan_there.groups
    assert {name: len(group["kept"]) % 4 for name, group in plan.groups.items()} == dict.fromkeys(plan.groups, 0)
    slim, slim_there = sp.prune(model, plan), sp.prune(other, plan_there)
    steps = ("means", "least_squares")
    mended, mended_there = (
        sp.recover(*all_, DATA, steps) for all_ in ((model, slim, plan), (other, slim_there, plan_there))
    )
    assert mended.layers == mended_there.layers
    weights, refitted = (dict(one.named_parameters()) for one in (slim, mended.model))
    fitted = [key for key in weights if key.endswith("weight") and not torch.equal(weights[key], refitted[key])]
    assert fitted == ["apart.weight", "blocks.weight", "last.weight"]  # the first lost nothing, and is behind the cut
    with torch.no_grad():
        torch.testing.assert_close(mended.model(DATA), mended_there.model(DATA), rtol=1e-3, atol=1e-4)
        before, after = ((one(DATA) - model(DATA)).square().mean() for one in (slim, mended.model))
    assert after < 0.5 * before


@pytest.mark.parametrize("form", ["module", "graph"])
def test_it_passes_the_gate(own, form):
    model = net(own.ConvSame)
    _, plan = cut(model, form)
    gate = sp.verify(model, sp.prune(model, plan), plan, DATA[:2])
    assert gate.passed, gate.reasons()
