"""Runs of a network, a task and data of the user's own, from end to end and in short."""

import pytest
import yaml

import structprune as sp
from structprune.errors import RecipeError
from structprune.recipe import check_recipe
from tests.image_folders import write_digits

pytestmark = pytest.mark.usefixtures("_short_turns")

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.norm(self.two(self.one(x).relu())).relu().mean((2, 3)))

class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.three = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        return {"aux": x.mean((1, 2, 3)), "out": self.three(self.two(self.one(x).relu()).relu())}

class Blurred(torch.utils.data.Dataset):
    def __init__(self, count, seed):
        self.count, self.seed = count, seed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1000 * self.seed + index))
        return x, nn.functional.avg_pool2d(x, 3, 1, 1)

class Thirds(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.three = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        return self.three(self.two(self.one(x).relu()).relu())

class Masks(Blurred):
    # of each pixel whether the mean around it is low, middle or high

    def __getitem__(self, index):
        x, mean = super().__getitem__(index)
        return x, (mean[0] > 0.35).long() + (mean[0] > 0.45).long()

def masks():
    return {"train": Masks(64, 1), "test": Masks(20, 2)}

def data(count=48):
    return {"train": Blurred(count, 1), "test": Blurred(20, 2)}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "nets_of_run_tests.py").write_text(NETS)
    write_digits(folder / "pictures", each=20)
    return folder


def run(place, name, resume=False, **recipe):
    path = place / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({"prune": {"budget": {"macs": 0.6}, "align": 1}, "bench": {"seconds": 0.05}, **recipe})
    )
    return sp.run(path, place / name, resume=resume)


@pytest.mark.thorough
def test_a_network_and_a_folder_of_ones_own(place):
    data = {"source": "folder", "path": "pictures", "image_size": 8, "mean": [0.3], "std": [0.3], "augment": None}
    training = {"epochs": 5, "batch_size": 12, "lr": 0.02}
    report = run(
        place, "classes", model={"source": "nets_of_run_tests.py:Net"}, train=training,
        data={**data, "calibration": {"images": 32}}, finetune={**training, "epochs": 1},
    )  # fmt: skip
    quality = report["quality"]
    assert report["gate"]["passed"]
    assert (quality["metric"], quality["images"]) == ("accuracy", 12)
    assert quality["dense"] > 0.6
    assert set(quality["likeness"]) == {"agreement", "kl", "still right"}
    assert report["data"] == {"notes": ["3 classes, numbered in this order: 0, 1, 2"], "skipped": []}
    blind = run(place, "blind", model={"run": str(place / "classes")}, data={**data, "labels": False})
    assert blind["quality"]["metric"] == "agreement"
    assert blind["quality"]["random_weights"] is False
    learning = {
        "epochs": 12,
        "batch_size": 12,
        "lr": 0.02,
        "methods": [{"method": "distill", "block_loss_weight": 1.0}],
    }
    taught = run(
        place, "taught", model={"run": str(place / "classes")}, data={**data, "labels": False}, finetune=learning,
        prune={"budget": {"macs": 0.3}, "align": 1},
    )["quality"]  # fmt: skip
    assert taught["metric"] == "agreement"
    assert taught["kl"]["final"] < 0.5 * taught["kl"]["pruned"]


@pytest.mark.thorough
def test_a_segmentation_of_ones_own_is_distilled_pixel_by_pixel(place):
    pytest.importorskip("torchmetrics")
    training = {"epochs": 6, "batch_size": 8, "lr": 0.01}
    quality = run(
        place, "thirds", model={"source": "nets_of_run_tests.py:Thirds"},
        task={"name": "segmentation", "num_classes": 3}, data={"source": "nets_of_run_tests.py:masks"}, train=training,
        finetune={**training, "lr": 0.005, "methods": [{"method": "distill", "task_loss_weight": 0.0}]},
        prune={"budget": {"macs": 0.3}, "align": 1},
    )["quality"]  # fmt: skip
    assert quality["metric"] == "miou"
    assert quality["final"] > quality["pruned"]
    assert quality["likeness"]["kl"]["final"] < 0.5 * quality["likeness"]["kl"]["pruned"]


def test_a_task_with_several_outputs_and_data_of_ones_own(place):
    pytest.importorskip("torchmetrics")
    report = run(
        place, "maps", model={"source": "nets_of_run_tests.py:Maps"}, task={"name": "regression", "data_range": 1.0},
        data={"source": "nets_of_run_tests.py:data", "kwargs": {"count": 32}, "calibration": {"images": 32}},
        train={"epochs": 8, "batch_size": 4, "lr": 0.003}, recover=["means", "least_squares"],
        prune={"criterion": "taylor", "allocation": "sensitivity", "budget": {"macs": 0.15}, "align": 1},
    )  # fmt: skip
    quality = report["quality"]
    assert report["gate"]["passed"]
    assert (quality["metric"], quality["images"]) == ("psnr", 20)
    assert 15 < quality["pruned"] < quality["recovered"] == quality["final"] < 40
    assert quality["likeness"]["relative error"]["dense"] == 0
    assert "psnr, final" in (place / "maps" / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": {"epochs": 1, "lr": 0.1}},
            "train needs labels, and data.source=images has none: use digits, a fold",
        ),
        (
            {"data": {"source": "digits"}, "task": {"name": "segmentation", "num_classes": 3}},
            "no use for class numbers",
        ),
        ({"task": "segmentatoin"}, "task: unknown task 'segmentatoin': did you mean segmentation"),
        ({"task": {"name": "segmentation"}}, "task.num_classes: Field required"),
        ({"data": {"source": "nowhere.py:load"}}, "data.source: there is no file nowhere.py"),
        ({"data": {"source": "folder"}}, "data.path: Field required"),
        ({"seed": 2**40}, "seed: Input should be less than or equal to 2147483648"),
    ],
)
def test_mistakes_get_one_line(changes, message):
    recipe = {"model": {"name": "resnet10t"}, "data": {"source": "images"}, "prune": {"budget": {"macs": 0.5}}}
    with pytest.raises(RecipeError) as error:
        check_recipe({**recipe, **changes})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
