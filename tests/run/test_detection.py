"""An object detector of one's own, from its training to the report, judged by mean average precision."""

import pytest
import yaml

import structprune as sp
from structprune.errors import RecipeError
from structprune.recipe import check_recipe

pytestmark = pytest.mark.usefixtures("_short_turns")

DETECTOR = """
import torch
from torch import nn
from torch.nn import functional as F

class Detector(nn.Module):
    '''A box for each cell of a grid of 4×4, on images of 16×16.'''

    def __init__(self, width=16):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)
        self.three, self.head = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, 5, 1)
        y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        self.register_buffer("middles", 4 * torch.stack([x, y], -1).reshape(16, 2) + 2)

    def forward(self, images, targets=None):
        x = self.three(self.two(self.one(images).relu()).relu()).relu()
        x = self.head(x).flatten(2).transpose(1, 2)
        middles, sizes = self.middles + x[..., 1:3], 3 * x[..., 3:].clamp(-3, 3).exp()
        boxes = torch.cat([middles - sizes, middles + sizes], -1)
        if targets is not None:
            return self.losses(x[..., 0], boxes, targets)
        scores = x[..., 0].sigmoid()
        return {"boxes": boxes, "scores": scores, "labels": torch.ones_like(scores, dtype=torch.int64)}

    def losses(self, scores, boxes, targets):
        true = torch.stack([target["boxes"][0] for target in targets])
        middle = (true[:, :2] + true[:, 2:]) / 2
        cell = ((middle[:, None] - self.middles).square().sum(-1)).argmin(1)
        wanted = F.one_hot(cell, 16).float()
        found = boxes[torch.arange(len(cell)), cell]
        return {
            "objectness": F.binary_cross_entropy_with_logits(scores, wanted),
            "boxes": F.l1_loss(found, true) / 4,
        }

class Pictures(torch.utils.data.Dataset):
    '''One bright rectangle each.'''

    def __init__(self, count, seed, labels=True):
        self.count, self.seed, self.labels = count, seed, labels

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        image = 0.1 * torch.rand(1, 16, 16, generator=generator)
        left, top = torch.randint(0, 9, (2,), generator=generator).tolist()
        width, height = torch.randint(5, 8, (2,), generator=generator).tolist()
        image[:, top : top + height, left : left + width] += 0.8
        box = torch.tensor([[left, top, left + width, top + height]]).float()
        return (image, {"boxes": box, "labels": torch.ones(1, dtype=torch.int64)}) if self.labels else image

def data(labels=True):
    return {"train": Pictures(256, 1, labels), "test": Pictures(48, 2, labels)}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "detector_of_run_tests.py").write_text(DETECTOR)
    return tmp_path


def run(place, name, **recipe):
    path = place / f"{name}.yaml"
    said = {
        "model": {"source": "detector_of_run_tests.py:Detector"},
        "task": "detection",
        "prune": {"budget": {"macs": 0.6}, "align": 1},
        "bench": {"seconds": 0.05},
    }
    path.write_text(yaml.safe_dump({**said, **recipe}))
    return sp.run(path, place / name)


@pytest.mark.slow
def test_a_detector_of_ones_own_is_trained_cut_and_judged_by_its_boxes(place):
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")
    data = {"source": "detector_of_run_tests.py:data", "calibration": {"images": 48}}
    training = {"epochs": 25, "batch_size": 32, "lr": 0.005}
    report = run(
        place, "boxes", data=data, train=training, recover=["means", "least_squares"],
        prune={"budget": {"macs": 0.5}, "align": 1, "allocation": "sensitivity"}, finetune={**training, "epochs": 8},
    )  # fmt: skip
    quality = report["quality"]
    assert report["gate"]["passed"]
    assert (quality["metric"], quality["images"]) == ("map", 48)
    assert quality["dense"] > 0.5
    assert quality["others"]["map50"]["dense"] > 0.8
    assert quality["final"] > 0.6 * quality["dense"]
    assert quality["final"] >= quality["pruned"]
    assert quality["likeness"]["map50 with dense"]["final"] > 0.5
    blind = run(
        place, "blind", model={"run": str(place / "boxes"), "code": "detector_of_run_tests.py"},
        data={"source": "detector_of_run_tests.py:data", "kwargs": {"labels": False}, "labels": False},
    )  # fmt: skip
    assert blind["quality"]["metric"] == "map50 with dense"
    assert blind["gate"]["passed"]


def test_a_criterion_of_gradients_is_refused_before_any_work(place):
    recipe = {
        "model": {"source": str(place / "detector_of_run_tests.py:Detector")},
        "task": "detection",
        "data": {"source": str(place / "detector_of_run_tests.py:data"), "calibration": {"images": 16}},
        "prune": {"budget": {"macs": 0.6}, "criterion": "taylor"},
    }
    with pytest.raises(RecipeError, match="taylor needs gradients, and task detection has no loss in evaluation mode"):
        check_recipe(recipe)
    recipe |= {"task": "regression", "data": {"source": "images", "calibration": {"images": 16}}}
    with pytest.raises(RecipeError, match="taylor needs gradients, and task regression has gradients with labels only"):
        check_recipe(recipe)
    assert check_recipe({**recipe, "task": "classification"})
