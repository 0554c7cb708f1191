"""Crops to train on without labels: other ones each time, the same under one seed, never of held-out files."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import structprune as sp
from structprune.data import load_data
from structprune.data.spec import ImagesSpec
from structprune.recipe import check_recipe

pytestmark = pytest.mark.usefixtures("_short_turns")


class Small(nn.Sequential):
    """Says, as timm's do, what its images are like."""

    num_classes = 5
    pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3)}  # noqa: RUF012

    def __init__(self):
        convolutions = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        super().__init__(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, self.num_classes))


def pictures(folder, shades):
    folder.mkdir()
    for shade in shades:
        Image.fromarray(np.full((40, 60, 3), shade, dtype=np.uint8)).save(folder / f"{shade}.png")
    return folder


def test_crops_are_fresh_and_of_calibration_files(tmp_path):
    folder = pictures(tmp_path / "all", range(10, 250, 30))
    model = timm.create_model("test_resnet", num_classes=3)
    spec = ImagesSpec(source="images", path=str(folder), train_crops=6, calibration={"images": 4})
    data = load_data(spec, model, seed=0)
    torch.manual_seed(1)
    first, second = (torch.stack([data.train[i][0] for i in range(len(data.train))]) for _ in range(2))
    torch.manual_seed(1)
    again = torch.stack([data.train[i][0] for i in range(len(data.train))])
    assert first.shape == (6, *model.pretrained_cfg["input_size"])
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    shades = {int(path.stem) for path in data.train.files}
    assert len(shades) == 4
    rest = set(range(10, 250, 30)) - shades  # the other half is held out
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    judged = {round(float((crop * std + mean)[0].mean()) * 255) for (crop,) in data.test}
    assert judged == rest


def test_a_run_is_finetuned_without_labels(tmp_path):
    pictures(tmp_path / "all", range(10, 250, 30))
    recipe = {
        "model": {"source": "tests.data.test_fresh_crops:Small"},
        "data": {
            "source": "images",
            "path": str(tmp_path / "all"),
            "crops": 4,
            "train_crops": 4,
            "calibration": {"images": 2},
        },
        "prune": {"budget": {"macs": 0.7}, "align": 1},
        "finetune": {"epochs": 1, "batch_size": 2, "lr": 1e-4, "methods": ["distill"]},
        "bench": {"seconds": 0.05},
    }
    report = sp.run(check_recipe(recipe), tmp_path / "run")
    assert report["gate"]["passed"]
    assert (tmp_path / "run" / "slim.summary.csv").read_text().startswith("epoch,train_loss,lr")
