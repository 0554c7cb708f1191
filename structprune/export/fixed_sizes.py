"""Prepares a graph form for exporters: sizes that do not follow the batch become numbers.

An ONNX file has one dynamic axis, the batch. Every other size the graph form reads from tensors when it runs, which
would leave chains of small nodes in the file, which the runtime computes again for each input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from ..modules import replace_tensors, skeleton_copy, tensors
from ..ops import Inputs
from ..surgery.branched_form import is_forked
from ..surgery.guards import check, takes


def pinned(model: nn.Module, inputs: Inputs) -> nn.Module:
    """The same network for inputs of these sizes at any batch, or `model` itself if it is not a graph form."""
    if (
        is_forked(model)
        or not isinstance(model, fx.GraphModule)
        or not any(n.target == "size" for n in model.graph.nodes)
    ):
        return model
    try:
        runs = [_sizes(model, _longer(inputs, more)) for more in (0, 1, 3)]
    except Exception:  # a network that runs at one batch only, or an op that has no meta kernel
        return model
    graph = fx.Graph()
    replacements: dict[fx.Node, Any] = {}
    for node in model.graph.nodes:
        values = [run.get(node) for run in runs]
        if isinstance(values[0], int) and all(value == values[0] for value in values):
            replacements[node] = values[0]
        elif node.op == "output":
            graph.output(fx.node.map_arg(node.args[0], lambda n: replacements[n]))
        elif node.target not in (takes, check):
            replacements[node] = graph.node_copy(node, lambda n: replacements[n])
    return fx.GraphModule(model, graph, class_name=type(model).__name__).eval()


class _Reader(fx.Interpreter):
    """Runs a module and keeps the whole numbers that it computes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.numbers: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if type(value) is int:
            self.numbers[n] = value
        return value


def _sizes(model: fx.GraphModule, inputs: Inputs) -> dict[fx.Node, int]:
    copy = skeleton_copy(model)
    replace_tensors(copy, {key: tensor.to("meta") for key, tensor in tensors(model).items()})
    assert isinstance(copy, fx.GraphModule)
    reader = _Reader(copy)
    names = [n.target for n in copy.graph.nodes if n.op == "placeholder"]
    arguments = dict(zip(inputs.names(model), inputs.flat(), strict=True))
    with torch.no_grad():
        reader.run(*(arguments[str(name)] for name in names))
    return dict(zip(model.graph.nodes, (reader.numbers.get(n) for n in copy.graph.nodes), strict=True))  # type: ignore[arg-type]


def _longer(inputs: Inputs, more: int) -> Inputs:
    batch = next((x.shape[0] for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), None)

    def longer(x: Tensor) -> Tensor:
        rows = x.shape[0] + more if x.dim() and x.shape[0] == batch else None
        return torch.empty(x.shape if rows is None else (rows, *x.shape[1:]), dtype=x.dtype, device="meta")

    return inputs.map(longer)
