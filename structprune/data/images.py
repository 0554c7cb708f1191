"""Crops of unlabelled images whose files are split into calibration and held-out."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ..calibration.rebatching import batches_from
from ..errors import RecipeError
from ..user_code_calls import reason
from ..user_folders import photographs_folder
from .image_files import SUFFIXES, converted, is_hidden, same_file
from .preprocessing import config_of, described
from .record import SOURCES, Data, Request, Source
from .spec import CalibrationSpec, ImagesSpec

HELD = 2**29  # bytes of images that stay in memory while crops are taken of them

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


def load_images(spec: ImagesSpec, request: Request) -> Data:
    """Loads crops of images.

    Raises:
        RecipeError: images are missing or do not fit the model.
    """
    config, notes = config_of(request.model)
    seed = request.seed
    calibration, held_out = _files(spec, seed)
    _refuse_shared(calibration, held_out, "data.path holds")
    chosen: list[Path] = []
    if request.choosing:
        calibration, chosen = split_for_choices(calibration, seed)
    rng = np.random.default_rng(seed)
    crops = [_crops(files, count, config, rng) for files, count in ((calibration, 4), (held_out, spec.crops))]
    validation = None
    if request.choosing:
        validation = TensorDataset(_crops(chosen, spec.crops, config, np.random.default_rng((seed, 2))))
    data = Data(crops[0], TensorDataset(crops[1]), validation=validation, notes=notes, images=_described(config))
    if spec.calibration is None:
        return replace(data, train=FreshCrops(calibration, spec.train_crops, config))
    files = _calibration_files(spec.calibration, spec.path, calibration)
    if more := [path for path in files if path.parent == photographs_folder()]:
        data = replace(
            data, notes=[*notes, f"calibration: {len(more)} of {len(files)} images are those of {more[0].parent}"]
        )
    if spec.calibration.path is None and not spec.calibration.files:
        files = [path for path in files if _scene(path) not in set(map(_scene, chosen))]
    _refuse_shared(files, [*held_out, *chosen], "data.calibration names")
    batches = batches_from(calibration_crops(files, spec.calibration, config, seed))
    return replace(data, calibration=batches, train=FreshCrops(files, spec.train_crops, config))


class FreshCrops(Dataset[tuple[Tensor]]):
    """Crops to train on without labels, other ones each time: recoloured, some of them joined of two images.

    PyTorch's generator decides, so that epochs that are seeded alike are alike.
    """

    def __init__(self, files: list[Path], count: int, config: dict) -> None:
        self.files, self.count, self.config = files, count, config
        self.images = _Images(config)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        a, b = (self._crop(self.files[place], rng) for place in rng.integers(0, len(self.files), 2))
        return (_joined(a, b, rng),)

    def _crop(self, file: Path, rng: np.random.Generator) -> Tensor:
        mean, std = _mean_and_std(self.config, channels=self.config["input_size"][0])
        crop = _crops([file], 1, self.config, rng, self.images)[0]
        return (_recoloured(crop * std + mean, rng) - mean) / std


def _refuse_shared(files: list[Path], judged: list[Path], source: str) -> None:
    measured = {same_file(path) for path in judged}
    shared = sorted(path for path in files if same_file(path) in measured)
    if shared:
        raise RecipeError(
            f"{source} {shared[0].name}, on which quality is measured: give other images there, or another "
            "data.path or data.held_out_path"
        )


def _described(config: dict) -> dict[str, Any]:
    channels, *size = config["input_size"]
    mean, std = (values.flatten().tolist() for values in _mean_and_std(config, channels))
    return described(channels, size, mean, std, "bicubic")


def _mean_and_std(config: dict, channels: int) -> tuple[Tensor, Tensor]:
    """Of shape (channels, 1, 1), or numbers for gray images."""
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    return (mean.mean(0), std.mean(0)) if channels == 1 else (mean, std)


def _scene(path: Path) -> Path:
    """The name of the scene: the same for two views of it, as skimage has of a motorcycle."""
    return path.with_name(path.stem.removesuffix("_left").removesuffix("_right"))


def split_for_choices(files: list[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Files to calibrate with and, a third of them, files to choose by."""
    if len(files) < 2:
        raise RecipeError(
            f"something is to choose by quality, and data.path leaves {len(files)} file to calibrate and choose with: "
            "give four images or more"
        )
    order = np.random.default_rng((seed, 3)).permutation(len(files))
    count = max(1, len(files) // 3)
    return [files[i] for i in sorted(order[count:])], [files[i] for i in sorted(order[:count])]


def _calibration_files(spec: CalibrationSpec, path: str | None, half: list[Path]) -> list[Path]:
    if spec.files:
        missing = [name for name in spec.files if not Path(name).is_file()]
        if missing:
            raise RecipeError(f"data.calibration.files: there is no file {missing[0]}")
        return [Path(name) for name in spec.files]
    if spec.path is not None:
        return _in_folder(Path(spec.path), "data.calibration.path", least=1)
    return half if path is not None else [*_bundled(_CALIBRATION_ALL), *_fetched()]


def _fetched() -> list[Path]:
    """The photographs that `tools/photographs.py` has fetched, if it has: none shows a scene that is held out."""
    return sorted(photographs_folder().glob("*.jpg"))


def calibration_crops(files: list[Path], spec: CalibrationSpec, config: dict, seed: int) -> Tensor:
    """Crops for statistics. Those of one file follow each other, so that parts of all come from different files."""
    rng = np.random.default_rng((seed, 1))
    counts = np.bincount(np.arange(spec.images) * len(files) // spec.images, minlength=len(files))
    crops = torch.cat([_crops([file], int(n), config, rng) for file, n in zip(files, counts, strict=True) if n])
    if not spec.augment:
        return crops
    mean, std = _mean_and_std(config, crops.shape[1])
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
    if spec.held_out_path is not None:
        held_out = _in_folder(Path(spec.held_out_path), "data.held_out_path", least=1)
        calibration = _bundled(_CALIBRATION) if spec.path is None else _in_folder(Path(spec.path), "data.path", least=1)
        return calibration, held_out
    if spec.path is None:
        return _bundled(_CALIBRATION), _bundled(_HELD_OUT)
    files = _in_folder(Path(spec.path), "data.path", least=2)
    order = np.random.default_rng(seed).permutation(len(files))
    half = len(files) // 2
    return [files[i] for i in sorted(order[:half])], [files[i] for i in sorted(order[half:])]


def _in_folder(folder: Path, key: str, least: int) -> list[Path]:
    if not folder.is_dir():
        raise RecipeError(f"{key}: {folder} is not a folder")
    images = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files = sorted(path for path in images if not is_hidden(path, folder))
    if len(files) < least:
        raise RecipeError(f"{key}: {folder} holds {len(files)} images, and {least} or more are needed")
    return files


def _bundled(names: tuple[str, ...]) -> list[Path]:
    files = []
    for name in names:
        package, _, inner = name.partition("/")
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(f"the sample image {name} is missing: pip install 'structprune[samples]'")
        files.append(Path(spec.submodule_search_locations[0]) / inner)
    return files


def _crops(
    files: list[Path], count: int, config: dict, rng: np.random.Generator, images: _Images | None = None
) -> Tensor:
    """`count` square crops of a third to all of the shorter side, files in turn, resized to the model's input."""
    channels, height, width = config["input_size"]
    mean, std = _mean_and_std(config, channels)
    images = images or _Images(config)
    crops = []
    for i in range(count):
        image = images.open(files[i % len(files)])
        side = int(min(image.size) * rng.uniform(1 / 3, 1))
        left, top = (int(rng.integers(0, size - side + 1)) for size in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((width, height), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(crop, dtype=np.float32) / 255).reshape(height, width, channels)
        crops.append((pixels.permute(2, 0, 1) - mean) / std)
    return torch.stack(crops)


class _Images:
    """Images in a network's colours: the first ones that are opened stay in memory, as many as `HELD` allows."""

    def __init__(self, config: dict) -> None:
        channels = config["input_size"][0]
        if channels not in (1, 3):
            raise RecipeError(f"data.source=images has 1 or 3 channels and the model wants {channels}")
        self.mode = "RGB" if channels == 3 else "L"
        self.held: dict[Path, Image.Image] = {}
        self.room = HELD

    def open(self, path: Path) -> Image.Image:
        """Raises RecipeError for a file that is no image."""
        if path in self.held:
            return self.held[path]
        image = _opened(path, self.mode)
        size = image.width * image.height * len(self.mode)
        if size <= self.room:
            self.held[path] = image
            self.room -= size
        return image


def _opened(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as file:
            return converted(file, mode)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others for broken files
        raise RecipeError(f"{path} is not an image that can be read: {reason(error)}") from error


SOURCES.add(Source("images", "crops of images without labels, of samples by default", ImagesSpec, load_images))
