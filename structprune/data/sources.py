"""Labelled digits, or crops of unlabelled images whose files are split into calibration and held-out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import RecipeError
from ..recipe import DigitsSpec, ImagesSpec

# Photographs that ship inside the packages, so that nothing is downloaded. No scene is on both sides.
_CALIBRATION = ("skimage/data/astronaut.png", "skimage/data/rocket.jpg", "skimage/data/motorcycle_left.png")
_HELD_OUT = (
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Data:
    """Images as float32 of shape (n, channels, height, width), normalised as the model wants them.

    `example` is a small batch of real inputs for tracing, gate and export, never of held-out files; `train` and
    `test` come with labels where there are any.
    """

    example: Tensor
    test: Tensor
    test_labels: Tensor | None = None
    train: Tensor | None = None
    train_labels: Tensor | None = None


def load_data(spec: DigitsSpec | ImagesSpec, model: nn.Module, seed: int) -> Data:
    """Raises RecipeError where the images are missing or do not fit the model."""
    if isinstance(spec, DigitsSpec):
        return _digits(spec, model)
    return _images(spec, model, seed)


def _digits(spec: DigitsSpec, model: nn.Module) -> Data:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from ..models import resolve_model_data_config

    classes = getattr(model, "num_classes", 10)
    if classes != 10:
        raise RecipeError(f"data.source=digits has 10 classes and the model {classes}: set model.kwargs.num_classes=10")
    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
    channels = resolve_model_data_config(model)["input_size"][0]
    if channels not in (1, 3):
        raise RecipeError(f"data.source=digits is grey and the model wants {channels} channels: set in_chans to 1 or 3")
    pixels = F.interpolate(pixels, spec.image_size, mode="bilinear", align_corners=False).expand(-1, channels, -1, -1)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=0.2, stratify=labels, random_state=0)
    mean, std = pixels[train].mean(), pixels[train].std()
    pixels = ((pixels - mean) / std).contiguous()
    target = torch.from_numpy(labels).long()
    return Data(pixels[train[:4]], pixels[test], target[test], pixels[train], target[train])


def _images(spec: ImagesSpec, model: nn.Module, seed: int) -> Data:
    from ..models import resolve_model_data_config

    config = resolve_model_data_config(model)
    calibration, held_out = _files(spec, seed)
    rng = np.random.default_rng(seed)
    crops = [_crops(files, count, config, rng) for files, count in ((calibration, 4), (held_out, spec.crops))]
    return Data(example=crops[0], test=crops[1])


def _files(spec: ImagesSpec, seed: int) -> tuple[list[Path], list[Path]]:
    if spec.path is None:
        return _bundled(_CALIBRATION), _bundled(_HELD_OUT)
    folder = Path(spec.path)
    if not folder.is_dir():
        raise RecipeError(f"data.path: {folder} is no folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if len(found) < 2:
        raise RecipeError(f"data.path: {folder} holds {len(found)} images, and two or more are needed")
    order = np.random.default_rng(seed).permutation(len(found))
    half = len(found) // 2
    return [found[i] for i in sorted(order[:half])], [found[i] for i in sorted(order[half:])]


def _bundled(names: tuple[str, ...]) -> list[Path]:
    files = []
    for name in names:
        package, _, inner = name.partition("/")
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(f"the sample image {name} is missing: pip install scikit-image scikit-learn")
        files.append(Path(spec.submodule_search_locations[0]) / inner)
    return files


def _crops(files: list[Path], count: int, config: dict, rng: np.random.Generator) -> Tensor:
    """`count` square crops of a third to all of the shorter side, files in turn, resized to the model's input."""
    channels, height, width = config["input_size"]
    if channels not in (1, 3):
        raise RecipeError(f"data.source=images has 1 or 3 channels and the model wants {channels}")
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    if channels == 1:
        mean, std = mean.mean(0), std.mean(0)
    mode = "RGB" if channels == 3 else "L"
    opened: dict[Path, Image.Image] = {}
    crops = []
    for i in range(count):
        path = files[i % len(files)]
        if path not in opened:
            try:
                with Image.open(path) as file:
                    opened[path] = file.convert(mode)
            except OSError as error:
                raise RecipeError(f"{path} is no image that can be read: {error}") from error
        image = opened[path]
        side = int(min(image.size) * rng.uniform(1 / 3, 1))
        left, top = (int(rng.integers(0, size - side + 1)) for size in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((width, height), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(crop, dtype=np.float32) / 255).reshape(height, width, channels)
        crops.append((pixels.permute(2, 0, 1) - mean) / std)
    return torch.stack(crops)
