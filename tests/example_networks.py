"""Hand-made networks whose groups, MACs and parameters can be worked out on paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import structprune as sp


class Chain(nn.Module):
    """conv(3→8, 3×3) – BN – ReLU – conv(8→6, 1×1) – pool – linear(6→5), on 3×10×10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.fc = nn.Conv2d(8, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


class LeNet(nn.Module):
    """Flattens by `view` with a number in the code, or by `flatten`, or by a width read from the tensor."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.how = nn.Linear(400, 120), nn.Linear(120, 10), how

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        if self.how == "number":
            x = x.view(-1, 16 * 5 * 5)
        elif self.how == "shape":
            x = x.view(x.shape[0], x.shape[1] * 25)
        else:
            x = x.flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class TwoInputs(nn.Module):
    """Two inputs, one of them by keyword, and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(2, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor, depth: Tensor) -> dict[str, Tensor]:
        x = self.a(image) + self.b(depth)
        return {"map": self.out(F.relu(x)), "pooled": self.out(x).mean((2, 3))}


class Tied(nn.Module):
    """Two convolutions that share their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.c.weight = self.b.weight
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(F.relu(self.b(self.enter(x)))))


def randomise(model: nn.Module) -> nn.Module:
    """Gives BatchNorm scales, shifts and statistics other values than 1 and 0."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def pruned(
    model: nn.Module, inputs: object, macs: float = 0.5, form: str = "module", **options: object
) -> tuple[sp.Plan, nn.Module]:
    graph = sp.trace(model, inputs, form=form)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": macs}, **{"align": 1, **options})
    return plan, sp.prune(model, plan)
