"""Labelled digits, or crops of unlabelled images whose files are split into calibration and held-out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import RecipeError
from ..recipe import CalibrationSpec, DigitsSpec, ImagesSpec

# Photographs that ship inside the packages, so that nothing is downloaded. No scene is on both sides.
_CALIBRATION = ("skimage/data/astronaut.png", "skimage/data/rocket.jpg", "skimage/data/motorcycle_left.png")
_HELD_OUT = (
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
# More for statistics, of all kinds of scenes: photographs first, then microscopy, textures, drawings and text.
_MORE = """retina.jpg ihc.png hubble_deep_field.jpg coins.png camera.png brick.png grass.png gravel.png horse.png
moon.png page.png cell.png microaneurysms.png color.png text.png logo.png clock_motion.png"""
_CALIBRATION_ALL = (
    *_CALIBRATION,
    "skimage/data/motorcycle_right.png",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    *(f"skimage/data/{name}" for name in _MORE.split()),
)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Data:
    """Images as float32 of shape (n, channels, height, width), normalised as the model wants them.

    `example` is a small batch of real inputs for tracing, gate and export, never of held-out files; `train` and
    `test` come with labels where there are any. `calibration` is for criteria, allocation and recovery, if the recipe
    asks for it; none of its files is held out.
    """

    example: Tensor
    test: Tensor
    test_labels: Tensor | None = None
    train: Tensor | None = None
    train_labels: Tensor | None = None
    calibration: Tensor | None = None
    calibration_labels: Tensor | None = None


def load_data(spec: DigitsSpec | ImagesSpec, model: nn.Module, seed: int) -> Data:
    """Raises RecipeError where the images are missing or do not fit the model."""
    if isinstance(spec, DigitsSpec):
        return _digits(spec, model, seed)
    return _images(spec, model, seed)


def _digits(spec: DigitsSpec, model: nn.Module, seed: int) -> Data:
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
    data = Data(pixels[train[:4]], pixels[test], target[test], pixels[train], target[train])
    if spec.calibration is None:
        return data
    if spec.calibration.images > len(train):
        raise RecipeError(
            f"data.calibration.images={spec.calibration.images}: the digits have {len(train)} to train on"
        )
    chosen = np.random.default_rng(seed).permutation(train)[: spec.calibration.images]
    return replace(data, calibration=pixels[chosen], calibration_labels=target[chosen])


def _images(spec: ImagesSpec, model: nn.Module, seed: int) -> Data:
    from ..models import resolve_model_data_config

    config = resolve_model_data_config(model)
    calibration, held_out = _files(spec, seed)
    rng = np.random.default_rng(seed)
    crops = [_crops(files, count, config, rng) for files, count in ((calibration, 4), (held_out, spec.crops))]
    data = Data(example=crops[0], test=crops[1])
    if spec.calibration is None:
        return data
    files = _calibration_files(spec.calibration, spec.path, calibration)
    shared = {path.resolve() for path in files} & {path.resolve() for path in held_out}
    if shared:
        raise RecipeError(
            f"data.calibration names {sorted(shared)[0].name}, on which quality is measured: give other images, or "
            "another data.path"
        )
    return replace(data, calibration=calibration_crops(files, spec.calibration, config, seed))


def _calibration_files(spec: CalibrationSpec, path: str | None, half: list[Path]) -> list[Path]:
    if spec.files:
        missing = [name for name in spec.files if not Path(name).is_file()]
        if missing:
            raise RecipeError(f"data.calibration.files: there is no file {missing[0]}")
        return [Path(name) for name in spec.files]
    if spec.path is not None:
        return _in_folder(Path(spec.path), "data.calibration.path", least=1)
    return half if path is not None else _bundled(_CALIBRATION_ALL)


def calibration_crops(files: list[Path], spec: CalibrationSpec, config: dict, seed: int) -> Tensor:
    """Crops for statistics, those of one file behind each other, so that parts of them come from different files."""
    rng = np.random.default_rng((seed, 1))
    counts = np.bincount(np.arange(spec.images) * len(files) // spec.images, minlength=len(files))
    crops = torch.cat([_crops([file], int(n), config, rng) for file, n in zip(files, counts, strict=True) if n])
    if not spec.augment:
        return crops
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    if crops.shape[1] == 1:
        mean, std = mean.mean(0), std.mean(0)
    changed = [(_recoloured(crop * std + mean, rng) - mean) / std for crop in crops]
    others = [changed[i] for i in rng.permutation(len(changed))]
    return torch.stack([_joined(a, b, rng) for a, b in zip(changed, others, strict=True)])


def _recoloured(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """A crop in [0, 1], maybe flipped, with its colours swapped, and other gamma, contrast and brightness."""
    if rng.random() < 0.5:
        pixels = pixels.flip(-1)
    if rng.random() < 0.5:
        pixels = pixels[rng.permutation(len(pixels))]
    pixels = pixels.clamp(0, 1) ** float(rng.uniform(0.6, 1.6))
    return ((pixels - 0.5) * float(rng.uniform(0.7, 1.3)) + 0.5 + float(rng.uniform(-0.1, 0.1))).clamp(0, 1)


def _joined(a: Tensor, b: Tensor, rng: np.random.Generator) -> Tensor:
    """`a`, or a crop whose right or lower part is that of `b`."""
    axis = int(rng.integers(0, 3))
    if axis == 0:
        return a
    size = a.shape[axis]
    at = int(rng.integers(size // 4, size - size // 4 + 1))
    return torch.cat([a.narrow(axis, 0, at), b.narrow(axis, at, size - at)], dim=axis)


def _files(spec: ImagesSpec, seed: int) -> tuple[list[Path], list[Path]]:
    if spec.path is None:
        return _bundled(_CALIBRATION), _bundled(_HELD_OUT)
    found = _in_folder(Path(spec.path), "data.path", least=2)
    order = np.random.default_rng(seed).permutation(len(found))
    half = len(found) // 2
    return [found[i] for i in sorted(order[:half])], [found[i] for i in sorted(order[half:])]


def _in_folder(folder: Path, key: str, least: int) -> list[Path]:
    if not folder.is_dir():
        raise RecipeError(f"{key}: {folder} is no folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if len(found) < least:
        raise RecipeError(f"{key}: {folder} holds {len(found)} images, and {least} or more are needed")
    return found


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
