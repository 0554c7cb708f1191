"""Programs by someone who means harm: ops that read foreign memory, sizes beyond all bounds, arithmetic without end."""

import json

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import ModelError, PlanError, StoreError
from structprune.graph.permitted_ops import refusal
from structprune.ops.record import OPS
from structprune.surgery import admission, graph_module
from tests.forged_folders import forge

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.b(self.a(x).relu()).flatten(1)


def _program(*nodes, output="last", layout=(), tensors=()):
    """A program of one input `x` whose nodes are (name, kind, target, args)."""
    made = [{"name": n, "kind": k, "target": t, "args": list(a), "kwargs": {}} for n, k, t, a in nodes]
    program = {"inputs": ["x"], "constants": {}, "nodes": made, "output": {"$node": output}}
    return graph_module(program, dict(layout), dict(tensors))


IN = {"$node": "x"}


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("aten._reshape_alias.default", [IN, [10**6], [1]]),
        ("aten._unsafe_view.default", [IN, [10**6]]),
        ("aten.as_strided.default", [IN, [10**6], [1]]),
        ("aten.as_strided_scatter.default", [IN, IN, [1], [1]]),
        ("aten.set_.source_Tensor", [IN, IN]),
        ("aten.resize_.default", [IN, [10**9]]),
        ("aten.from_file.default", ["/etc/passwd", False, 10]),
        ("aten.empty_strided.default", [[10**6], [1]]),
        ("aten._native_batch_norm_legit_no_training.default", [IN, IN, IN, IN, IN, 0.1, 1e-5]),
        ("aten.native_batch_norm.default", [IN, IN, IN, IN, IN, False, 0.1, 1e-5]),
        ("aten.add.out", [IN, IN]),
        ("aten._print.default", ["x"]),
        ("aten._index_put_impl_.default", [IN, [IN], IN, False, True]),
        ("prim.device.default", [IN]),
        ("c10d.send.default", [IN]),
        ("load_library.a.b", ["x"]),
        ("aten.__class__.x", []),
        ("aten.relu", [IN]),
        ("aten", []),
        ("", []),
    ],
)
def test_ops_that_are_not_admitted(op, args):
    with pytest.raises(PlanError, match=r"is no op|is not an op|can't be built"):
        _program(("last", "op", op, args))


def test_every_rule_is_admitted_but_those_that_trust_sizes():
    trusting = {"_reshape_alias", "_unsafe_view", "empty_strided", "cudnn_batch_norm"}
    trusting |= {"_native_batch_norm_legit_no_training"}
    for name in (name for name, record in OPS.items() if record.rule is not None):
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None:
            overloads = [getattr(packet, o) for o in packet.overloads() if not o.endswith(("out", "out_x", "output"))]
            assert any(not refusal(overload) for overload in overloads) is (name not in trusting), name


@pytest.mark.parametrize(
    ("kind", "target", "args"),
    [
        ("torch", "zeros", [[10**6, 10**6]]),
        ("torch", "empty", [[1 << 40]]),
        ("torch", "full", [[10**5, 10**5], 1.0]),
        ("method", "new_zeros", [IN, [10**10]]),
        ("method", "new_empty", [IN, [10**5, 10**5]]),
        ("method", "repeat", [IN, 10**5, 10**5]),
        ("op", "aten.eye.default", [10**9]),
        ("op", "aten.arange.default", [10**12]),
        ("op", "aten.randn.default", [[10**6, 10**6]]),
        ("op", "aten.constant_pad_nd.default", [IN, [10**9, 0]]),
        ("op", "aten.upsample_nearest2d.default", [IN, [10**6, 10**6]]),
    ],
)
def test_tensors_beyond_all_bounds(kind, target, args):
    with pytest.raises(PlanError, match="more than 268,435,456"):
        _program(("last", kind, target, args))


def test_arithmetic_is_done_with_sizes_and_ends():
    with pytest.raises(PlanError, match="that is not a number"):
        _program(("last", "mul", "", ["a", 10**9]))
    with pytest.raises(PlanError, match="that is not a number"):
        _program(("last", "add", "", [[0], [1]]))
    nodes = [("n0", "method", "size", [IN, 3])]
    nodes += [(f"n{i + 1}", "mul", "", [{"$node": f"n{i}"}, {"$node": f"n{i}"}]) for i in range(80)]
    with pytest.raises(PlanError, match="multiplies sizes"):
        _program(*nodes, output="n80")(X)


def test_what_is_made_without_being_filled_holds_no_old_memory():
    for kind, target, args in [
        ("torch", "empty", [[500]]),
        ("method", "new_empty", [IN, [500]]),
        ("op", "aten.empty_like.default", [IN]),
        ("op", "aten.empty.memory_format", [[500]]),
        ("op", "aten.new_empty.default", [IN, [500]]),
    ]:
        torch.full((500,), 7.0)
        assert _program(("last", kind, target, args))(X).abs().sum() == 0


def _given(**tensors):
    layout = {key: {"parameter": True, "trains": True} for key in tensors}
    nodes = [(f"p_{key}", "get", key, []) for key in tensors]
    return nodes, layout, tensors


@pytest.mark.parametrize("short", ["w", "u", "c", None])
def test_an_lstm_in_a_program_checks_its_weights(short):
    torch.manual_seed(0)
    sizes = {"w": (20, 6), "u": (20, 5), "c": (20,), "d": (20,)}
    nodes, layout, tensors = _given(
        **{k: torch.randn(s[0] // (4 if k == short else 1), *s[1:]) for k, s in sizes.items()}
    )
    nodes += [("h", "method", "new_zeros", [IN, [1, 3, 5]])]
    weights = [{"$node": f"p_{key}"} for key in sizes]
    h = [{"$node": "h"}, {"$node": "h"}]
    nodes += [("all", "op", "aten.lstm.input", [IN, h, weights, True, 1, 0.0, False, False, False])]
    nodes += [("last", "getitem", "", [{"$node": "all"}, 0])]
    net, x = _program(*nodes, layout=layout, tensors=tensors), torch.randn(4, 3, 6)
    with torch.no_grad():
        if short is None:
            expected = torch.ops.aten.lstm(
                x, [x.new_zeros(1, 3, 5)] * 2, list(tensors.values()), True, 1, 0.0, False, False, False
            )
            assert torch.equal(net(x), expected[0])
            return
        with pytest.raises(PlanError, match="an LSTM's weights are"):
            net(x)


@pytest.mark.parametrize("state", [(1, 1, 5), (1, 48, 5), (2, 3, 5), (1, 3, 5)])
def test_an_lstm_in_a_program_checks_its_state(state):
    """The kernel takes the number of samples and layers from the input, and writes beyond a smaller state."""
    weights = [torch.randn(20, 6), torch.randn(20, 5), torch.randn(20), torch.randn(20)]
    x, h = torch.randn(4, 3, 6), torch.zeros(state)
    with torch.no_grad():
        if state == (1, 3, 5):
            assert admission.checked_lstm(x, [h, h], weights, True, 1, 0.0, False, False, False)[0].shape == (4, 3, 5)
            return
        with pytest.raises(PlanError, match="an LSTM's states are"):
            admission.checked_lstm(x, [h, h], weights, True, 1, 0.0, False, False, False)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_weight_norm_in_a_program_checks_its_lengths(rows):
    nodes, layout, tensors = _given(v=torch.randn(3, 6), g=torch.rand(rows, 1))
    nodes += [("last", "op", "aten._weight_norm.default", [{"$node": "p_v"}, {"$node": "p_g"}, 0])]
    net = _program(*nodes, layout=layout, tensors=tensors)
    if rows == 3:
        assert torch.equal(net(X), torch._weight_norm(tensors["v"], tensors["g"], 0))
        return
    with pytest.raises(PlanError, match="has lengths of shape"):
        net(X)


@pytest.mark.parametrize(("places", "last"), [([0, 2], False), ([0, -5, 3], True), ([0, 3, 2], True), ([0, 4], False)])
def test_bags_of_an_embedding_lie_in_what_they_are_of(places, last):
    """The kernel reads the places before the first and behind the last index."""
    nodes, layout, tensors = _given(w=torch.randn(10, 4))
    tensors["places"] = torch.tensor(places)
    layout["places"] = {"parameter": False, "persistent": True}
    nodes += [("p_places", "get", "places", [])]
    given = [{"$node": "p_w"}, IN, {"$node": "p_places"}, False, 0, False, None, last]
    nodes += [("all", "op", "aten.embedding_bag.default", given)]
    nodes += [("last", "getitem", "", [{"$node": "all"}, 0])]
    net, x = _program(*nodes, layout=layout, tensors=tensors), torch.tensor([1, 2, 3])
    if places == [0, 2]:
        assert torch.equal(net(x), nn.functional.embedding_bag(x, tensors["w"], tensors["places"], mode="sum"))
        return
    with pytest.raises(PlanError, match="an embedding's bags start at"):
        net(x)


def test_a_folder_with_an_op_that_is_not_admitted(tmp_path):
    graph = sp.trace(Net().eval(), X[:1], form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    slim = sp.prune(graph.model, plan)
    folder = sp.save(slim, plan, tmp_path / "slim")
    assert torch.equal(sp.load(folder)(X), slim(X))

    def alias(data):
        node = next(node for node in data["program"]["nodes"] if node["target"] == "aten.relu.default")
        node.update(target="aten._reshape_alias.default", args=[*node["args"], [10**6], [1]])

    forge(folder, alias)
    with pytest.raises(StoreError, match="reads memory that its arguments may not hold"):
        sp.load(folder)


@torch.library.custom_op("admission::own", mutates_args=())
def own(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@own.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class WithOwn(Net):
    def forward(self, x):
        return super().forward(own(x))


def test_an_op_without_a_rule_is_said_when_a_graph_form_is_planned():
    graph = sp.trace(WithOwn().eval(), X[:1], form="graph")
    with pytest.raises(ModelError, match=r"the graph form can.t hold admission::own .*it has no rule"):
        sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    with pytest.raises(PlanError, match="it has no rule"):
        admission.op("admission.own.default")


def test_names_are_not_code():
    plain = {"inputs": ["x"], "constants": {}, "nodes": [], "output": IN}
    for inputs in (["x", "x"], ["self"], ["x=print(1)"], ["None"], ["x\n"], [1]):
        with pytest.raises(PlanError):
            graph_module({**plain, "inputs": inputs}, {}, {})
    text = "'); print('run"
    net = graph_module({**plain, "output": {"$dict": {text: IN, "b": {"$tuple": [text, IN]}}}}, {}, {})
    assert json.dumps(sorted(net(X))) == json.dumps(sorted([text, "b"]))
    assert net(X)["b"][0] == text
