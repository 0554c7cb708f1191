"""What a recorded pass tells of its calls, by hand on one small network."""

import torch
from torch import Tensor, nn

from structprune.graph.layers import find_layers
from structprune.graph.recorded_calls import RecordedCalls
from structprune.ops import Inputs, capture

X = torch.randn(2, 3, 6, 6)


class Pooled(nn.Module):
    """Convolution, BatchNorm, two pointwise steps, an average and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head, self.last = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.clamp(self.norm(self.conv(x)).relu(), max=0.5)
        return self.last(self.head(x.mean((2, 3)).flatten(1)))


def test_calls_tell_what_is_made_and_where_it_goes():
    recorded = capture(Pooled().eval(), Inputs.of(X))
    calls, (layers, (norm,)) = RecordedCalls(recorded), find_layers(recorded)
    conv, head, last = layers
    assert calls.result(conv.site).shape == (2, 4, 6, 6)
    assert head.recorded_call.x.shape == (2, 4)
    values = torch.tensor([-1.0, 0.2, 3.0])
    assert calls.activation_after(norm.site)(values).tolist() == torch.tensor([0.0, 0.2, 0.5]).tolist()
    assert values.tolist() == torch.tensor([-1.0, 0.2, 3.0]).tolist()
    assert calls.before_average(head.input, 4) == ("clamp", 0)
    assert calls.before_average(head.input, 5) is None  # maps of other channels
    assert calls.before_average(last.input, 5) is None  # no average comes before
    assert calls.before_average(conv.input, 3) is None  # it gets the input itself


def test_a_layer_without_its_bias():
    net = Pooled().eval()
    (conv, head, _), _ = find_layers(capture(net, Inputs.of(X)))
    for layer, module, x in ((conv, net.conv, X), (head, net.head, torch.randn(2, 4))):
        args = [module.weight if one is None else one for one in (x, None, module.bias)]
        more = [[1, 1], [1, 1], [1, 1], 1] if layer is conv else []
        with torch.no_grad():
            made = layer.without_bias([*args, *more], x)
        bias = module.bias.reshape(-1, 1, 1) if layer is conv else module.bias
        assert made.dtype == torch.float64
        torch.testing.assert_close(made.float() + bias, module(x))
