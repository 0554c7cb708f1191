"""How the time to trace and plan grows with the number of nodes: the same networks at rising depth, on `meta`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import structprune as sp

DEPTHS = (3, 6, 12, 24, 48)
HEADER = f"{'network':10}{'nodes':>7}{'trace s':>9}{'ms/node':>9}{'plan s':>8}"


@dataclass(frozen=True)
class Point:
    """One network at one depth.

    Attributes:
        network: What it is called.
        nodes: ATen calls of one forward pass.
        trace_s: The least seconds that tracing took.
        plan_s: The least seconds that scoring and planning took.
    """

    network: str
    nodes: int
    trace_s: float
    plan_s: float


def networks(depth: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """A ResNet of bottlenecks, a ViT and a ConvNeXt with about `depth` times four, one and four blocks."""
    from timm.models.convnext import ConvNeXt
    from timm.models.resnet import Bottleneck, ResNet
    from timm.models.vision_transformer import VisionTransformer

    bottleneck: Any = Bottleneck  # timm's annotation says an instance
    image = torch.empty(1, 3, 224, 224, device="meta")
    with torch.device("meta"):
        return {
            "ResNet": (ResNet(bottleneck, (depth,) * 4).eval(), image),
            "ViT": (VisionTransformer(embed_dim=192, num_heads=3, depth=4 * depth).eval(), image),
            "ConvNeXt": (ConvNeXt(depths=(depth,) * 4, dims=(40, 80, 160, 320)).eval(), image),
        }


def measure(name: str, model: nn.Module, x: Tensor, repeats: int) -> Point:
    """Traces and plans a network `repeats` times, and takes the least seconds of each."""
    tracing, planning, nodes = [], [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        graph = sp.trace(model, x)
        middle = time.perf_counter()
        sp.plan(graph, sp.score(graph, lambda group: torch.ones(group.units)), {"macs": 0.5}, align=1)
        tracing.append(middle - start)
        planning.append(time.perf_counter() - middle)
        nodes = graph.nodes
    return Point(name, nodes, min(tracing), min(planning))


def measure_all(repeats: int, depths: Sequence[int] = DEPTHS) -> Iterator[Point]:
    """Measures each network at each depth, the shallow ones first."""
    for depth in depths:
        for name, (model, x) in networks(depth).items():
            yield measure(name, model, x, repeats)


def line(point: Point) -> str:
    """A point as a line under `HEADER`."""
    each = 1000 * point.trace_s / point.nodes
    return f"{point.network:10}{point.nodes:7}{point.trace_s:9.2f}{each:9.2f}{point.plan_s:8.2f}"


def draw(points: Sequence[Point], path: Path) -> None:
    """Draws the seconds to trace against the nodes, a curve for each network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.add_subplot()
    for name in dict.fromkeys(point.network for point in points):
        curve = [(point.nodes, point.trace_s) for point in points if point.network == name]
        axes.plot(*zip(*curve, strict=True), marker="o", label=name)
    axes.set(xlabel="nodes (ATen calls of one forward pass)", ylabel="seconds to trace", xlim=0, ylim=0)
    axes.legend()
    figure.savefig(path, dpi=120)
