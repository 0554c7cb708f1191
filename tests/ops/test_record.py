"""Records of ops: names in them are those of the ops, and what can't be is said where it is registered."""

import pytest
import torch
from torch import Tensor, nn

import structprune as sp
from structprune.calibration import WritableNetwork
from structprune.graph import Flow, Value, op
from structprune.graph.elementwise import applied
from structprune.ops import Inputs
from structprune.ops.record import KINDS, OPS, OpRecord, in_order, is_known, record_of


def arguments_of(name):
    """What the overloads of an ATen op call their arguments."""
    packet = getattr(torch.ops.aten, name)
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    return {argument.name for schema in schemas for argument in schema.arguments}


def test_arguments_are_called_as_the_ops_call_them():
    assert is_known("conv2d")
    for name, record in OPS.items():
        roles = set(KINDS[record.kind]) if record.kind else set()
        named = {record.name_of(role) for role in roles} | (set() if callable(record.sizes) else set(record.sizes))
        if named and "::" not in name:
            assert named <= arguments_of(name), name


def test_an_op_without_a_record_is_not_known():
    assert not is_known("own::nothing")
    assert record_of("own::nothing").rule is None
    with pytest.raises(KeyError, match=r"unknown op 'conv2dd': did you mean conv2d"):
        OPS["conv2dd"]


@pytest.mark.parametrize(
    ("knowledge", "reason"),
    [
        ({"kind": "convolutions"}, r"op own::x: unknown kind 'convolutions': did you mean convolution"),
        ({"kind": "convolution"}, r"op own::x: a convolution, and nothing else, says where its windows lie"),
        (
            {"kind": "linear", "arguments": {"weights": "w"}},
            r"op own::x: unknown argument 'weights': did you mean weight",
        ),
        ({"effect": "activate"}, r"op own::x: unknown effect 'activate': did you mean activation"),
    ],
)
def test_what_a_record_can_not_say(knowledge, reason):
    with pytest.raises(ValueError, match=reason):
        op("own::x", **knowledge)(lambda flow, x: x)
    assert not is_known("own::x")


def test_a_rule_may_be_given_to_an_op_that_has_none(monkeypatch):
    assert record_of("kl_div").rule is None
    monkeypatch.setitem(OPS, "kl_div", OPS["kl_div"])  # put back at the end
    OPS.add(OpRecord("kl_div", lambda flow, x: x))
    assert record_of("kl_div").rule is not None


def test_arguments_in_an_ops_own_order():
    target, x, weight = torch.ops.aten.conv2d.default, object(), object()
    assert list(in_order(target, (x, weight), {}, 3)) == [x, weight, None]
    assert list(in_order(target, (x, weight), {"groups": 2})) == [x, weight, None, [1, 1], [0, 0], [1, 1], 2]


torch.library.define("own::steep", "(Tensor x) -> Tensor")


@torch.library.impl("own::steep", "CompositeImplicitAutograd")
def _(x: Tensor) -> Tensor:
    return (3 * x).relu()


@pytest.fixture
def own_activation():
    @op("own::steep", masked=applied, effect="activation")
    def rule(flow: Flow, x: Value) -> Value:
        return Value(tuple(flow.shape), x.axes)

    yield
    OPS.pop("own::steep")


class Steep(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.bn, self.leave = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.leave(torch.ops.own.steep(self.bn(self.enter(x))))


@pytest.mark.usefixtures("own_activation")
def test_an_own_activation_is_expected_and_exact():
    torch.manual_seed(0)
    model, x = Steep().eval(), torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        model.bn.weight.uniform_(0.5, 2)
        model.bn.bias.normal_()
    (group,) = sp.trace(model, x).groups
    assert group.exact
    working = WritableNetwork.of(model, Inputs.of(x))
    expected = working.expected(working.layers[1])
    drawn = torch.randn(200_000, 6) * model.bn.weight + model.bn.bias
    torch.testing.assert_close(expected.mean.float(), (3 * drawn).relu().mean(0), rtol=0.02, atol=0.02)
