"""`structprune init`: what it sees, what it writes, what does not fit, and that what it writes runs."""

import re
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub.utils
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.data import load_data
from structprune.errors import ModelError, RecipeError
from structprune.first_recipe import first_recipe, look_at_folder, write_recipe
from structprune.inspection import inspect_model
from structprune.models import CodeSpec, build_model
from structprune.recipe import Recipe, read_recipe
from tests.image_folders import write_digits
from tests.models.files import write_network

pytestmark = pytest.mark.usefixtures("_short_turns")

FLAT = """
from torch import nn

class Flat(nn.Sequential):
    def __init__(self, side=30, outputs=7, channels=3):
        super().__init__(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * side * side, outputs))

class Tokens(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Embedding(20, 8), nn.Linear(8, 20))

    def forward(self, x):
        return super().forward(x).mean(1)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def images(folder: Path, *names: str, side: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (side, side + 8, 3), dtype=np.uint8)).save(folder / name)
    return folder


def written(made, name: str = "made.yaml") -> Recipe:
    return read_recipe(write_recipe(made, Path(name)))


def test_what_a_folder_holds(folder):
    images(folder / "classes", "train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/.hidden.png", side=20)
    seen = look_at_folder("classes")
    assert (seen.classes, seen.images, seen.split, seen.side) == (("a", "b"), 3, ("train", "val"), 20)
    assert seen.line == "classes: 2 classes, 3 images, split into train and val"
    images(folder / "flat", "1.png", "deep/2.png")
    assert look_at_folder("flat").classes == ()
    images(folder / "mixed", "1.png", "a/2.png", "b/2.png")
    with pytest.raises(RecipeError, match=r"mixed/1\.png lies beside 2 folders: put images into folders of classes"):
        look_at_folder("mixed")
    images(folder / "held", "val/a/1.png", "val/b/1.png")
    with pytest.raises(RecipeError, match=r"held has val and no train"):
        look_at_folder("held")
    (folder / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"empty holds no images"):
        look_at_folder("empty")
    (folder / "empty" / "1.png").write_bytes(b"no image")
    with pytest.raises(RecipeError, match=r"none of 1 images can be read"):
        look_at_folder("empty")
    with pytest.raises(RecipeError, match="there is no such folder"):
        look_at_folder("none")
    with pytest.raises(RecipeError, match="it is a file"):
        look_at_folder(folder / "flat" / "1.png")


def test_a_network_of_ten_outputs_without_data_gets_the_digits(folder):
    path, lines = write_network(folder), []
    made = first_recipe(f"{path.name}:Net", tell=lines.append)
    recipe = written(made)
    assert made.name == "net.yaml"
    assert recipe.data.source == "digits"
    assert recipe.train
    assert recipe.finetune
    assert recipe.data.image_size == 32
    assert lines == [f"runs code of {path.name}, as the module {path.stem}"]
    assert "images of 1×224×224, 10 outputs" in made.notes[0]
    quick = [
        "train={epochs: 1, lr: 0.002}",
        "finetune.epochs=1",
        "bench.seconds=0.3",
        "prune.align=1",
        "data.image_size=8",
    ]
    report = sp.run("made.yaml", "run", overrides=[*quick, "bench.seconds=0.3", "prune.align=1"])
    assert report["gate"]["passed"]
    assert report["model"]["name"] == f"{path.name}:Net"
    again = written(first_recipe("run", code=path.name), "again.yaml")
    assert again.model.code == path.name
    assert again.data == recipe.data.model_copy(update={"image_size": 8})
    assert again.train is None
    assert again.finetune
    assert first_recipe("run", code=path.name).name == "run-again.yaml"


def test_weights_and_images_without_labels(folder):
    path = write_network(folder)
    spec = CodeSpec(source=f"{path.name}:Net", kwargs={"channels": 3})
    torch.save(build_model(spec, 3, lambda line: None).state_dict(), "net.pth")
    images(folder / "photos", *(f"{i}.png" for i in range(6)), side=300)
    options = {"kwargs": '{"channels": 3}', "weights": "net.pth", "tell": lambda line: None}
    recipe = written(first_recipe(f"{path.name}:Net", "photos", **options))
    assert recipe.model.weights == "net.pth"
    assert recipe.train is recipe.finetune is None
    assert [step.method for step in recipe.recover] == ["means", "least_squares", "temperature"]
    assert not recipe.data.labelled if hasattr(recipe.data, "labelled") else recipe.data.source == "images"
    samples = written(first_recipe(f"{path.name}:Net", **options), "samples.yaml")
    assert samples.data.source == "images"
    assert samples.data.path is None


def test_class_folders_are_labels(folder):
    path = write_network(folder)
    for part in ("train", "val"):
        write_digits(folder / "classes" / part, each=4, start=0 if part == "train" else 4)
    lines = []
    made = first_recipe(f"{path.name}:Net", "classes", tell=lines.append)
    recipe = written(made)
    assert lines[1] == f"{path.name}:Net has 10 outputs, and classes holds 3 classes: num_classes is set to 3"
    assert recipe.model.kwargs == {"num_classes": 3}
    assert (recipe.data.source, recipe.data.path, recipe.data.image_size) == ("folder", "classes", 16)
    assert recipe.train
    assert recipe.finetune
    assert "# Quality is measured on val.\n" in made.text
    data = load_data(recipe.data, build_model(recipe.model, 0, lines.append), 0)
    assert data.classes == 3
    assert recipe.train.batch_size == recipe.finetune.batch_size == 4  # of twelve images
    assert data.example.shape == (4, 1, 16, 16)
    assert len(inspect_model("made.yaml", tell=lines.append).groups) == 2
    write_digits(folder / "plain")
    assert "# A fifth of each class is held out.\n" in first_recipe("test_resnet", "plain").text


def test_classes_that_are_not_the_networks_own(folder):
    path = write_network(folder)
    write_digits(folder / "classes")
    spec = CodeSpec(source=f"{path.name}:Net")
    torch.save(build_model(spec, 3, lambda line: None).state_dict(), "net.pth")
    made = first_recipe(f"{path.name}:Net", "classes", weights="net.pth")
    recipe = written(made)
    assert not recipe.data.labels
    assert (recipe.data.mean, recipe.data.std) == ((0.449,), (0.226,))
    assert any("set the true ones" in note for note in made.notes)
    assert recipe.finetune is None
    assert any("(10) are not the 3 classes of classes: the images are taken without labels" in n for n in made.notes)
    (folder / "own_fixed.py").write_text(FLAT)
    with pytest.raises(RecipeError, match=r"has 7 outputs, and classes holds 3 classes: make it with 3 outputs"):
        first_recipe("own_fixed.py:Flat", "classes")
    kept = first_recipe("own_fixed.py:Flat", "classes", kwargs={"outputs": 3, "side": 14})
    assert written(kept, "kept.yaml").train


DATASETS = """
import torch
from torch.utils.data import TensorDataset

x = torch.arange(40 * 6).reshape(40, 6) % 20

def pairs():
    return {"train": TensorDataset(x[:30], x[:30, 0] % 2), "test": TensorDataset(x[30:], x[30:, 0] % 2)}

def alone():
    return {"train": x[:30], "test": x[30:]}

def values():
    return {"train": TensorDataset(x, x.float()), "test": TensorDataset(x + 0, x.float())}
"""


def test_datasets_of_the_users_own(folder):
    (folder / "own_tokens.py").write_text(FLAT)
    (folder / "own_datasets.py").write_text(DATASETS)
    lines = []
    made = first_recipe("own_tokens.py:Tokens", "own_datasets.py:pairs", tell=lines.append)
    recipe = written(made)
    assert lines == [f"runs code of own_{name}.py, as the module own_{name}" for name in ("tokens", "datasets")]
    assert made.notes[0].startswith("own_tokens.py:Tokens: samples of 6, ")
    assert recipe.data.source == "own_datasets.py:pairs"
    assert recipe.data.labels
    assert recipe.train
    assert inspect_model("made.yaml", tell=lines.append).groups
    unlabelled = written(first_recipe("own_tokens.py:Tokens", "own_datasets.py:alone"), "alone.yaml")
    assert not unlabelled.data.labels
    assert unlabelled.train is None
    assert unlabelled.data.calibration.images == 30
    for model, data, message in (
        (
            "own_tokens.py:Tokens",
            "own_datasets.py:values",
            "gives targets that are not classes: write the recipe",
        ),
        ("own_tokens.py:Tokens", "own_datasets.py:none", "own_datasets.py:none: unknown name 'none'"),
        ("own_tokens.py:Flat", "own_datasets.py:pairs", "own_tokens.py:Flat does not run on the samples of"),
    ):
        with pytest.raises((RecipeError, ModelError), match=re.escape(message)):
            first_recipe(model, data)


def test_a_timm_model_out_of_reach_of_its_weights(folder, monkeypatch):
    hub = Mock()
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *names: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: hub)
    hub.head.side_effect = ConnectionError("no route to host")
    made = first_recipe("test_resnet")
    recipe = written(made)
    assert not recipe.model.pretrained
    assert any("random weights, as" in note for note in made.notes)
    hub.head.side_effect = None
    assert written(first_recipe("test_resnet"), "other.yaml").model.pretrained
    assert first_recipe("test_resnet").text.count("\n") < 25


def test_what_does_not_fit_is_one_line(folder):
    (folder / "own_flat.py").write_text(FLAT)
    for model, options, message in (
        ("own_flat.py:Flat", {}, r"no samples are made for own_flat\.py:Flat, which takes images of 3×32×32"),
        ("own_flat.py:Flat", {"kwargs": '{"side": 33}'}, r"does not run on images of 3×224×224 or 3×32×32 \(.*--input"),
        ("own_flat.py:Flat", {"kwargs": '{"channels": 5}'}, r"takes 5 channels, and images have 1 or 3"),
        ("own_flat.py:Flat", {"input_size": (16,)}, r"--input-size 16: give C,H,W"),
        ("own_flat.py:Tokens", {}, r"takes tokens \(its first layer, 0, is an Embedding\)"),
        ("own_flat.py:Flat", {"data": "nowhere"}, r"--data nowhere: there is no such folder"),
        ("made.yaml", {}, r"made\.yaml is a recipe already: give a model"),
        ("resnet1", {}, r"unknown model 'resnet1': did you mean"),
        ("test_resnet", {"code": "a.py"}, r"test_resnet takes no --code"),
    ):  # fmt: skip
        with pytest.raises((RecipeError, ModelError), match=message) as caught:
            first_recipe(model, **options)
        assert "\n" not in str(caught.value)


def test_nothing_is_overwritten_and_other_folders_get_absolute_paths(folder):
    path = write_network(folder)
    command = ["init", f"{path.name}:Net", "--out"]
    result = CliRunner().invoke(app, [*command, "made.yaml"])
    assert result.exit_code == 0, result.output
    assert "made.yaml is written. Run it: structprune run made.yaml" in result.output
    before = (folder / "made.yaml").read_text()
    result = CliRunner().invoke(app, [*command, "made.yaml"])
    assert result.exit_code == 2
    assert "made.yaml exists already: give another file by --out" in " ".join(result.output.split())
    assert (folder / "made.yaml").read_text() == before
    (folder / "other").mkdir()
    CliRunner().invoke(app, [*command, "other/made.yaml"])
    assert read_recipe(folder / "other" / "made.yaml").model.source == f"{path}:Net"
    for out, message in (("made.txt", "ends with .yaml"), ("no/made.yaml", "can't be written")):
        result = CliRunner().invoke(app, [*command, out])
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
