"""Which layer of a network a runtime's kernel belongs to."""

from __future__ import annotations

from pathlib import Path

import onnx

RUNTIME = "(runtime)"  # the layer of kernels that the runtime adds: reorders, transposes
# Of a file's own ops, which are ONNX's: those of a network have records (`ops.record`).
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


class LayerNames:
    """From the names of kernels to module paths, by the names that torch's exporter gives nodes.

    A fused kernel has the name of the last node in it: it counts as the convolution or matrix product that it starts
    with.
    """

    def __init__(self, path: str | Path) -> None:
        graph = onnx.load(str(path), load_external_data=False).graph
        self._nodes = {node.name: node for node in graph.node}
        self._makers = {output: node for node in graph.node for output in node.output}

    def of(self, kernel: str, op: str) -> str:
        name = kernel.partition("#")[0].removesuffix("_nchwc")
        if " after " in name:
            return RUNTIME
        node = self._makers.get(name) or self._nodes.get(name)
        if node is None:
            return _path(name) if name.startswith("/") else RUNTIME
        start = node
        for _ in range(4):
            if start.op_type in _LAYERS or not start.input or start.input[0] not in self._makers:
                break
            start = self._makers[start.input[0]]
        fused = start.op_type in _LAYERS and any(kind in op for kind in _LAYERS)
        return _path((start if fused else node).name)


def _path(name: str) -> str:
    """`/model/layer1/layer1.0/conv1/Conv` is in `layer1.0.conv1`: each part repeats what its parent is called."""
    parts = name.strip("/").split("/")[:-1]
    path: list[str] = []
    before = ""
    if parts[:1] == ["model"]:  # the network itself
        before, parts = "model", parts[1:]
    for part in parts:
        path.append(part.removeprefix(before + ".") if before and part.startswith(before + ".") else part)
        before = part
    return ".".join(path) or "(top level)"
