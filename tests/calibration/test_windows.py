"""Windows times weights are the layer's outputs, whatever its padding, stride, dilation and groups."""

import pytest
import torch
from torch import nn

from structprune.calibration import WritableNetwork, sample
from structprune.calibration.observer import Observer
from structprune.modules import evaluating
from structprune.ops import Inputs

LAYERS = [
    (nn.Conv2d(6, 4, 3, padding=1, stride=2), (3, 6, 9, 7)),
    (nn.Conv2d(6, 4, (3, 2), padding=(2, 0), dilation=(2, 1)), (3, 6, 9, 7)),
    (nn.Conv2d(6, 4, 3, padding="same", dilation=2), (3, 6, 8, 8)),
    (nn.Conv2d(6, 4, 4, padding="same"), (3, 6, 8, 8)),
    (nn.Conv2d(6, 4, 3, padding="valid", groups=2), (3, 6, 8, 8)),
    (nn.Conv2d(6, 12, 3, padding=1, groups=6), (3, 6, 8, 8)),
    (nn.Conv1d(6, 4, 5, padding=2, stride=3), (3, 6, 17)),
    (nn.Conv3d(6, 4, (1, 3, 3), padding=(0, 1, 1)), (3, 6, 2, 5, 5)),
    (nn.Linear(6, 4), (3, 6)),
    (nn.Linear(6, 4), (3, 5, 6)),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value))
def test_windows_times_weights_are_outputs(layer, shape, bias):
    if not bias:
        layer.bias = None
    x = torch.randn(shape)
    working = WritableNetwork.of(layer, Inputs.of(x[:1]))
    (found,) = working.layers
    seen = []
    with evaluating(working.module), Observer({found.site: lambda args, result: seen.append((args, result))}):
        working.module(x)
    ((args, result),) = seen
    rows = sample(found.read(args), 4, torch.Generator().manual_seed(0))
    assert len(set(zip(rows.image.tolist(), rows.place.tolist(), strict=True))) == len(rows.windows)
    weight = layer.weight.detach()
    by_block = rows.blocks(weight) @ weight.reshape(rows.windows.shape[1] // weight.shape[1], -1, weight[0].numel()).mT
    made = by_block.transpose(0, 1).flatten(1) + (layer.bias.detach() if bias else 0)
    torch.testing.assert_close(made, rows.outputs(result, found.axis), rtol=1e-4, atol=1e-5)


def test_transposed_convolutions_have_no_windows():
    layer, x = nn.ConvTranspose2d(4, 4, 3), torch.randn(1, 4, 5, 5)
    (found,) = WritableNetwork.of(layer, Inputs.of(x)).layers
    with pytest.raises(ValueError, match="no input window"):
        sample(found.read((x, layer.weight)), 4, torch.Generator())


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)
        self.bn_a, self.bn_b = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
        self.sum, self.cat, self.gate = nn.Conv2d(5, 2, 1), nn.Conv2d(10, 2, 1), nn.Conv2d(5, 2, 1)
        self.fc = nn.Linear(5, 2)

    def forward(self, x):
        a, b = self.bn_a(self.a(x)), self.bn_b(self.b(x))
        s = torch.relu(a + b)
        pooled = nn.functional.adaptive_avg_pool2d(s, 1).flatten(1)
        return self.sum(s), self.cat(torch.cat([torch.sigmoid(a), b], 1)), self.gate(a * b), self.fc(pooled)


def test_moments_that_batchnorms_tell_against_samples():
    model = Sums().eval()
    with torch.no_grad():
        for norm in (model.bn_a, model.bn_b):
            norm.weight.normal_()
            norm.bias.normal_()
    working = WritableNetwork.of(model, Inputs.of(torch.randn(1, 3, 4, 4)))
    told = {layer.module: working.expectations.of(layer.input) for layer in working.layers}
    z = torch.randn(2, 400_000, 5, dtype=torch.float64)
    a, b = (z[i] * norm.weight + norm.bias for i, norm in enumerate((model.bn_a, model.bn_b)))
    for module, values in (("sum", (a + b).relu()), ("cat", torch.cat([a.sigmoid(), b], 1))):
        torch.testing.assert_close(told[module].mean, values.mean(0), rtol=0, atol=0.02)
        torch.testing.assert_close(told[module].variance, values.var(0), rtol=0.03, atol=0.01)
    torch.testing.assert_close(told["fc"].mean, told["sum"].mean)
    assert told["fc"].variance is None
    assert told["gate"] is None
    assert told["a"] is None
