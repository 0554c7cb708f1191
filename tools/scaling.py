"""How the time to trace and plan grows with the number of nodes: the same networks at rising depth, on the meta device.

python tools/scaling.py [--repeats 3] [--write docs/scaling.png]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import structprune as sp

DEPTHS = (3, 6, 12, 24, 48)


def networks(depth: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """A ResNet of bottlenecks, a ViT and a ConvNeXt with about `depth` times four, one and four blocks."""
    from timm.models.convnext import ConvNeXt
    from timm.models.resnet import Bottleneck, ResNet
    from timm.models.vision_transformer import VisionTransformer

    image = torch.empty(1, 3, 224, 224, device="meta")
    with torch.device("meta"):
        return {
            "ResNet": (ResNet(Bottleneck, [depth] * 4).eval(), image),
            "ViT": (VisionTransformer(embed_dim=192, num_heads=3, depth=4 * depth).eval(), image),
            "ConvNeXt": (ConvNeXt(depths=(depth,) * 4, dims=(40, 80, 160, 320)).eval(), image),
        }


def measure(model: nn.Module, x: Tensor, repeats: int) -> tuple[int, float, float]:
    """Nodes, and the least seconds of `repeats` to trace and to plan."""
    traced, planned, nodes = [], [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        graph = sp.trace(model, x)
        middle = time.perf_counter()
        sp.plan(graph, sp.score(graph, lambda group: torch.ones(group.units)), {"macs": 0.5}, align=1)
        traced.append(middle - start)
        planned.append(time.perf_counter() - middle)
        nodes = graph.nodes
    return nodes, min(traced), min(planned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a picture of the curve")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':10}{'nodes':>7}{'trace s':>9}{'ms/node':>9}{'plan s':>8}")
    curves: dict[str, list[tuple[int, float]]] = {}
    for depth in DEPTHS:
        for name, (model, x) in networks(depth).items():
            nodes, traced, planned = measure(model, x, options.repeats)
            curves.setdefault(name, []).append((nodes, traced))
            print(f"{name:10}{nodes:7}{traced:9.2f}{1000 * traced / nodes:9.2f}{planned:8.2f}", flush=True)
    if options.write:
        draw(curves, options.write)


def draw(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="nodes (ATen calls of one forward pass)", ylabel="seconds to trace", xlim=0, ylim=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
