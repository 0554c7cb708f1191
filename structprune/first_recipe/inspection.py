"""Inspects a model (what it takes and returns) and a folder of images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from .. import user_code
from ..errors import ModelError, RecipeError
from ..models import CodeSpec, ModelSpec, TimmSpec, build_model, first_layer, resolve_model_data_config
from ..models.inputs import says_its_images, says_its_size
from ..modules import evaluating, tensors
from .task_inference import is_classes, task_by_name, task_of_outputs

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
SMALL, USUAL = 32, 224  # pixels of a side: of digits and the like, and of photographs
_LOOKED_AT = 50  # images whose sizes are read


@dataclass(frozen=True)
class Network:
    """A model as its recipe will have it.

    Attributes:
        spec: The spec of `model` in the recipe.
        takes: The shape of a sample, for a line: `images of 3×32×32`.
        channels: The channels of its images; 0 for samples of other kinds.
        sizes: (height, width) of images that it ran on, the likeliest first.
        own_size: Whether the first is what data sources use by default.
        says_images: Whether its configuration says what images it takes, with mean and deviation.
        outputs: The number of scores for an image; None if its output is not a row of scores.
        params: The number of its parameters.
        task: The section `task` of its recipe.
    """

    spec: ModelSpec
    takes: str
    channels: int
    sizes: tuple[tuple[int, int], ...]
    own_size: bool
    says_images: bool
    outputs: int | None
    params: int
    task: dict[str, Any]

    @property
    def line(self) -> str:
        scores = f", {self.outputs} outputs" if self.outputs else ""
        return f"{self.spec.name}: {self.takes}{scores}, {self.params:,} parameters, for {self.task['name']}"


@dataclass(frozen=True)
class Folder:
    """A folder of images.

    Attributes:
        path: As the user named it.
        classes: The names of its class folders; empty if it has none.
        images: How many there are, in all its splits.
        training: How many there will be to train on.
        split: Its split folders, such as (`train`, `val`).
        side: The median length of the shorter side, in pixels, of a sample of the images.
    """

    path: Path
    classes: tuple[str, ...]
    images: int
    training: int
    split: tuple[str, ...]
    side: int

    @property
    def line(self) -> str:
        classes = f"{len(self.classes)} classes, " if self.classes else "no class folders, "
        split = f", split into {' and '.join(self.split)}" if self.split else ""
        return f"{self.path}: {classes}{self.images} images{split}"


def look_at_folder(folder: str | Path) -> Folder:
    """Looks at a folder of images: class folders, a split of such, or images without classes.

    A sample of the images is opened for their size.

    Args:
        folder: The folder.

    Returns:
        Its classes, its split, and how many images there are.

    Raises:
        RecipeError: It is not a folder, holds no images that can be read, or mixes images and class folders.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RecipeError(f"--data {path}: {'it is a file' if path.exists() else 'there is no such folder'}")
    split = tuple(n for names in SPLITS.values() for n in names if (path / n).is_dir())
    if split and split[0] not in SPLITS["train"]:
        raise RecipeError(f"--data {path} has {split[0]} and no train: add train, or name one folder of classes")
    inner = path / split[0] if split else path
    files = _images(path)
    if not files:
        raise RecipeError(f"--data {path} holds no images ({', '.join(sorted(SUFFIXES))})")
    parts = [file.relative_to(inner).parts for file in files if file.is_relative_to(inner)]
    classes = sorted({part[0] for part in parts if len(part) > 1})
    flat = [part for part in parts if len(part) == 1]
    if classes and flat and len(classes) > 1:
        raise RecipeError(
            f"--data {path}: {inner / flat[0][0]} lies beside {len(classes)} folders: put images into folders of "
            "classes, or all into one"
        )
    training = len(parts) if len(split) > 1 else int(0.8 * len(parts))
    return Folder(path, tuple(classes) if len(classes) > 1 else (), len(files), training, split, _side(files))


def look_at_model(
    spec: ModelSpec,
    size: tuple[int, ...] | None,
    folder: Folder | None,
    tell: Callable[[str], object],
    task: str | None = None,
) -> Network:
    """Builds a model, with as many outputs as a folder has classes if its code lets that be set, and runs it.

    Args:
        spec: The spec of the model.
        size: (channels, height, width) that the user asks for; by default the model's own, or the folder's.
        folder: The images that it will get.
        tell: Gets a line for what is run, and what was set.
        task: The task that the user names; by default inferred from the outputs.

    Returns:
        The network.

    Raises:
        RecipeError: The model does not take images, or does not have the folder's classes.
        ModelError: The model can't be built or run.
    """
    network = _measured(spec, size, folder, tell, task)
    classes = len(folder.classes) if folder and is_classes(network.task) else 0
    if not classes or network.outputs in (None, classes) or spec.trained:
        return network
    misfit = f"{spec.name} has {network.outputs} outputs, and {folder and folder.path} holds {classes} classes"
    if _takes_num_classes(spec):
        kwargs = {**spec.kwargs, "num_classes": classes}  # type: ignore[attr-defined]
        network = _measured(spec.model_copy(update={"kwargs": kwargs}), size, folder, lambda line: None, task)
        if network.outputs == classes:
            tell(f"{misfit}: num_classes is set to {classes}")
            return network
    raise RecipeError(
        f"{misfit}: make it with {classes} outputs by --kwargs, or give its weights by --weights, to take the images "
        "without labels"
    )


def _measured(
    spec: ModelSpec,
    size: tuple[int, ...] | None,
    folder: Folder | None,
    tell: Callable[[str], object],
    task: str | None,
) -> Network:
    if isinstance(spec, TimmSpec) and spec.pretrained:
        model = build_model(spec.untrained(), 0, tell)  # what it takes and returns does not depend on its weights
    else:
        model = build_model(spec, 0, tell)
    first = first_layer(model)
    if first is not None and isinstance(first[1], nn.Embedding) and size is None:
        raise RecipeError(
            f"{spec.name} takes tokens (its first layer, {first[0]}, is an Embedding), and init writes recipes for "
            "images: give datasets of your own, --data file.py:function"
        )
    if size is not None and len(size) != 3:
        raise RecipeError(f"--input-size {','.join(map(str, size))}: give C,H,W, as init writes recipes for images")
    config = resolve_model_data_config(model)
    channels = size[0] if size else int(config["input_size"][0])
    if channels not in (1, 3):
        raise RecipeError(
            f"{spec.name} takes {channels} channels, and images have 1 or 3: write a recipe with own data"
        )
    own = (int(config["input_size"][1]), int(config["input_size"][2]))
    fixed = says_its_size(model)
    tried = [(size[1], size[2])] if size else _sizes(own, fixed, folder)
    sizes: list[tuple[int, int]] = []
    outputs: Any = None
    images, problem = torch.empty(0), ""
    for height, width in tried:
        try:
            zeros = torch.zeros(2, channels, height, width)
            with evaluating(model):
                results = model(zeros)
        except Exception as error:  # whatever the model's own code raises
            problem = problem or (str(error).strip().splitlines() or [type(error).__name__])[0]
            continue
        outputs, images = (results, zeros) if not sizes else (outputs, images)
        sizes.append((height, width))
    if not sizes:
        listed = " or ".join(f"{channels}×{height}×{width}" for height, width in tried)
        raise ModelError(f"{spec.name} does not run on images of {listed} ({problem}): give --input-size C,H,W")
    takes = f"images of {channels}×{sizes[0][0]}×{sizes[0][1]}"
    says_images = says_its_images(model)
    purpose = task_by_name(task, outputs, spec.name) if task else task_of_outputs(outputs, images, model, spec.name)
    scores = scores_of(outputs) if is_classes(purpose) else None
    return Network(spec, takes, channels, tuple(sizes), sizes[0] == own, says_images, scores, params_of(model), purpose)


def params_of(model: nn.Module) -> int:
    return sum(t.numel() for t in tensors(model).values() if isinstance(t, nn.Parameter))


def _sizes(own: tuple[int, int], fixed: bool, folder: Folder | None) -> list[tuple[int, int]]:
    """Sizes to try: the model's own; or that of the folder's images, and usual ones."""
    if fixed:
        return [own]
    sides = [min(max(folder.side, SMALL // 2), USUAL)] if folder else []
    return list(dict.fromkeys((side, side) for side in (*sides, USUAL, SMALL)))


def scores_of(out: Any) -> int | None:
    """The number of scores for a sample; None if the output is not a row of scores."""
    out = getattr(out, "logits", out)
    return int(out.shape[1]) if isinstance(out, Tensor) and out.dim() == 2 else None


def _takes_num_classes(spec: ModelSpec) -> bool:
    if isinstance(spec, TimmSpec):
        return True
    if not isinstance(spec, CodeSpec):
        return False
    try:
        parameters = inspect.signature(user_code.find(spec.source)).parameters
    except (TypeError, ValueError):  # a builtin
        return False
    if "num_classes" in parameters:
        return True
    return spec.source.startswith("torchvision.models") and "kwargs" in parameters  # handed on to the class


def _images(folder: Path) -> list[Path]:
    """The images in a folder and below it, without hidden ones."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def _side(files: list[Path]) -> int:
    sides = []
    for file in files[:: max(1, len(files) // _LOOKED_AT)]:
        try:
            with Image.open(file) as image:
                sides.append(min(image.size))
        except Exception:  # Pillow raises OSError, SyntaxError, ValueError and others for broken files
            continue
    if not sides:
        raise RecipeError(f"--data: none of {len(files)} images can be read, such as {files[0]}")
    return sorted(sides)[len(sides) // 2]
