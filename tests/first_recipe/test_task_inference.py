"""`structprune init` for all tasks: what is guessed and asked for, and that what it writes can be trained and used."""

import pytest
import torch
import yaml
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.data import load_data
from structprune.errors import RecipeError
from structprune.first_recipe import first_recipe, write_recipe
from structprune.models import build_model
from structprune.quality_judge import Judge
from structprune.recipe import read_recipe
from structprune.tasks.building import make_task
from structprune.train import fit
from tests.first_recipe.test_first_recipe import images
from tests.run.test_detection import DETECTOR

pytestmark = pytest.mark.usefixtures("_short_turns")

NETS = """
import torch
from torch import nn
from torch.utils.data import Dataset

class Maps(nn.Sequential):
    def __init__(self, out=4, channels=3):
        super().__init__(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(16, out, 1))

class Named(Maps):
    def forward(self, x):
        return {"out": super().forward(x), "aux": x.mean()}

class Vectors(nn.Sequential):
    num_classes = 0
    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 24, 3, 2), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(24, 8))

class Words(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :12].reshape(-1, 3, 4)

class Made(Dataset):
    def __init__(self, what, count, seed):
        self.what, self.count, self.seed = what, count, seed
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1000 * self.seed + index))
        if self.what == "masks":
            return x, (4 * x[0]).long().clamp(0, 3)
        if self.what == "clean":
            return x, x * 0.5
        if self.what == "vectors":
            return x, torch.cat([x.mean((1, 2)), x.amax((1, 2)), x[0, 0, :2]])
        if self.what == "texts":
            return x, "a label"
        return x

def both(what): return {"train": Made(what, 48, 1), "test": Made(what, 12, 2)}
def masks(): return both("masks")
def clean(): return both("clean")
def vectors(): return both("vectors")
def texts(): return both("texts")
def alone(): return both("alone")
"""
OWN = """
from structprune.tasks.regression import Regression

class Task(Regression):
    name = "own"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("purposes")
    (folder / "nets_of_purposes.py").write_text(NETS)
    (folder / "detector_of_purposes.py").write_text(DETECTOR)
    (folder / "task_of_purposes.py").write_text(OWN)
    images(folder / "flat", *[f"{i}.png" for i in range(8)])
    images(folder / "classes", *[f"{name}/{i}.png" for name in "ab" for i in range(3)])
    return folder


@pytest.fixture
def folder(home, tmp_path, monkeypatch):
    """Where what is made goes; the files of the user's own are in the current folder."""
    monkeypatch.chdir(home)
    return tmp_path


def judged(made, folder):
    """The quality of the network that a written recipe names, on its data, after a step of training if it trains."""
    recipe = read_recipe(write_recipe(made, folder / "made.yaml"))
    model, task = build_model(recipe.model, 0), make_task(recipe.task)
    data = load_data(recipe.data, model, 0, task=task)
    if recipe.train:
        spec = recipe.train.model_copy(update={"epochs": 1, "warmup_epochs": 0})
        fit(model, data.train, spec, task=task, seed=0, checkpoint=folder / "training")
    return recipe, Judge(task, data.test, model, labelled=data.labelled).dense


CASES = [
    ("Maps", "masks", None, {"name": "segmentation", "num_classes": 4}, "miou"),
    ("Named", "masks", None, {"name": "segmentation", "num_classes": 4}, "miou"),
    ("Maps", "alone", None, {"name": "segmentation", "num_classes": 4}, "agreement"),
    ("Maps?out=3", "clean", None, {"name": "regression"}, "psnr"),
    ("Maps?out=1", "alone", None, {"name": "regression"}, "relative error"),
    ("Vectors", "vectors", "embedding", {"name": "embedding"}, "cosine"),
    ("Vectors", "alone", None, {"name": "embedding"}, "cosine with dense"),
    ("Vectors", "vectors", "regression", {"name": "regression"}, "psnr"),
    ("Maps?out=3", "clean", "task_of_purposes.py:Task", {"name": "task_of_purposes.py:Task"}, "psnr"),
    ("Maps", "flat", None, {"name": "segmentation", "num_classes": 4}, "agreement"),
    ("Vectors", "flat", None, {"name": "embedding"}, "cosine with dense"),
    ("Maps?out=3", "flat", "regression", {"name": "regression"}, "relative error"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def test_what_is_written_is_judged_and_trained(folder, case):
    net, data, task, section, metric = case
    name, _, kwargs = net.partition("?")
    options = {"kwargs": {key: int(value) for key, value in [kwargs.split("=")]}} if kwargs else {}
    options |= {"task": task, "input_size": (3, 16, 16) if data == "flat" else None}
    source = data if data == "flat" else f"nets_of_purposes.py:{data}"
    made = first_recipe(f"nets_of_purposes.py:{name}", source, **options)
    assert f", for {section['name']}" in made.notes[0]
    recipe, quality = judged(made, folder)
    said = yaml.safe_load(made.text)["task"]
    assert {key: said[key] for key in section} == section
    assert quality.metric == metric
    assert bool(recipe.train) == bool(recipe.finetune) == (data not in ("alone", "flat"))


def test_a_detector(folder):
    pytest.importorskip("pycocotools")
    made = first_recipe("detector_of_purposes.py:Detector", "detector_of_purposes.py:data")
    recipe, quality = judged(made, folder)
    assert recipe.task.name == "detection"
    assert recipe.train.epochs >= 5
    assert quality.metric == "map"


def test_what_can_not_be_told_is_asked_for(folder):
    nets, data = "nets_of_purposes.py:", "nets_of_purposes.py:"
    for model, source, task, message in (
        ("Vectors", "vectors", None, "say what they are, by --task regression or --task embedding"),
        ("Maps", "texts", None, "gives targets that are not classes: write the recipe by hand, or say its task"),
        ("Words", "alone", None, "does not tell its task: name it by --task classification, detection"),
        ("Maps", "masks", "segmentatoin", "--task: unknown task 'segmentatoin': did you mean segmentation"),
        ("Vectors", "vectors", "segmentation", "needs scores of classes at every pixel, and .* gives 1×8"),
        ("Maps", "clean", "segmentation", "a mask is torch.float32"),
        ("Maps", "masks", "no_such.py:Task", "--task there is no file no_such.py"),
    ):
        with pytest.raises(RecipeError, match=message) as error:
            first_recipe(f"{nets}{model}", f"{data}{source}", task=task)
        assert "\n" not in str(error.value)


def test_classes_of_a_folder_are_no_labels_for_other_tasks(folder):
    command = ["init", "nets_of_purposes.py:Maps", "--data", "classes", "--task", "segmentation"]
    result = CliRunner().invoke(app, [*command, "--input-size", "3,16,16", "--out", str(folder / "made.yaml")])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "classes holds classes, which task segmentation has no use for: no labels are taken" in text
    recipe = read_recipe(folder / "made.yaml")
    assert (recipe.data.labels, recipe.task.num_classes) == (False, 4)
    assert "--task segmentation" in (folder / "made.yaml").read_text().splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[5], CASES[9], None], ids=str)
def test_what_is_written_runs_as_it_is(folder, case, monkeypatch):
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "off")
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(folder / "cache"))
    if case is None:
        pytest.importorskip("pycocotools")
        made = first_recipe("detector_of_purposes.py:Detector", "detector_of_purposes.py:data")
    else:
        net, data, task, _, _ = case
        name, _, kwargs = net.partition("?")
        options = {"kwargs": {"out": 3}} if kwargs else {}
        options |= {"task": task, "input_size": (3, 16, 16) if data == "flat" else None}
        source = data if data == "flat" else f"nets_of_purposes.py:{data}"
        made = first_recipe(f"nets_of_purposes.py:{name}", source, **options)
    report = sp.run(write_recipe(made, folder / "made.yaml"), folder / "out")
    assert report["gate"]["passed"]
    assert report["quality"]["metric"] == ("map" if case is None else case[4])
    assert torch.isfinite(torch.tensor(report["quality"]["final"]))
