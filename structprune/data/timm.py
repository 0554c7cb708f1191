"""Datasets by timm's names: `torch/cifar10`, `hfds/…`, or a folder as timm reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch.utils.data import IterableDataset, Subset

from .._compat import declare_torchvision_ops
from ..errors import RecipeError
from ..own_code import reason
from ..specs import Number, RecipePath, Whole
from .files import ImageFiles
from .preprocessing import Preprocessing, preprocessing
from .record import SOURCES, Data, Request, Source
from .spec import AugmentSpec, DataSpec, PreprocessingKeys
from .splitting import VALIDATION, calibrated, split_off


class TimmSpec(DataSpec, PreprocessingKeys):
    """A dataset that `timm.data.create_dataset` knows as `name`, in the folder `root`; nothing is downloaded unless
    `download` says so. Where `test_split` is null, `held_out` of the training split is kept for measuring."""

    source: Literal["timm"]
    name: str
    root: RecipePath | None = None
    train_split: str = "train"
    test_split: str | None = "validation"
    held_out: Number = Field(default=0.2, gt=0, lt=1)
    download: bool = False
    augment: AugmentSpec | None = Field(default_factory=AugmentSpec)
    workers: Whole = Field(default=0, ge=0, le=256)

    @property
    def labelled(self) -> bool:
        return True


def load_timm(spec: TimmSpec, request: Request) -> Data:
    """A dataset of timm's. Raises RecipeError where timm does not know it or it can't be reached."""
    wish = preprocessing(request.model, spec)
    train = _dataset(spec, spec.train_split, wish, wish.transform(spec.augment), replace=True)
    plain = _dataset(spec, spec.train_split, wish, wish.transform())
    if spec.test_split is None:
        stays, off = split_off(len(plain), spec.held_out, request.seed)
        test: Any = Subset(plain, off)
    else:
        stays, test = list(range(len(plain))), _dataset(spec, spec.test_split, wish, wish.transform())
        if _places(test) & _places(plain):
            raise RecipeError(
                f"data: the splits {spec.train_split} and {spec.test_split} of {spec.name} share files: set "
                "data.test_split=null to hold a part out"
            )
    validation = None
    if request.choosing:
        keep, off = split_off(len(stays), VALIDATION, request.seed + 1)
        validation, stays = Subset(plain, [stays[i] for i in off]), [stays[i] for i in keep]
    source = Subset(plain, stays)
    example = calibrated(source, min(4, len(source)), request.seed, request.task, spec.name)[0]
    calibration = None
    if spec.calibration is not None:
        calibration = calibrated(source, spec.calibration.images, request.seed, request.task, spec.name)
    return Data(
        example=example.inputs.args[0],
        test=test,
        train=Subset(train, stays),
        validation=validation,
        calibration=calibration,
        labelled=True,
        workers=spec.workers,
        notes=wish.notes,
    )


class _Converted:
    """A transform of images in another mode than PIL's `mode`. A class, as workers need to pickle it."""

    def __init__(self, mode: str, transform: Callable[[Any], Any]) -> None:
        self.mode, self.transform = mode, transform

    def __call__(self, image: Any) -> Any:
        return self.transform(image.convert(self.mode))


def _dataset(
    spec: TimmSpec, split: str, wish: Preprocessing, transform: Callable[[Any], Any], replace: bool = False
) -> Any:
    declare_torchvision_ops()
    from timm.data import create_dataset

    try:
        made = create_dataset(spec.name, root=spec.root, split=split, download=spec.download)
    except BaseException as error:  # timm, torchvision and the hubs raise whatever they like
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        advice = "is its name and root right, and can its hub be reached from here?"
        raise RecipeError(f"data: timm can't open {spec.name} ({split}): {reason(error)}: {advice}") from error
    if isinstance(made, IterableDataset) or not len(made):
        raise RecipeError(f"data: {spec.name} ({split}) is a stream or empty: give a dataset with a length")
    if samples := _samples(made):  # timm would give the next image for one that it can't open, and count it twice
        paths, labels = zip(*samples, strict=True)
        return ImageFiles([Path(p) for p in paths], labels, transform, mode=wish.mode, replace=replace)
    made.transform = _Converted(wish.mode, transform)
    return made


def _samples(dataset: Any) -> list[tuple[str, int]]:
    """The files and labels of a dataset that is made of files."""
    found = getattr(getattr(dataset, "reader", None), "samples", None) or getattr(dataset, "samples", None) or []
    plain = all(isinstance(s, (tuple, list)) and len(s) == 2 and Path(str(s[0])).is_file() for s in found[:10])
    return [(str(path), int(label)) for path, label in found] if plain else []


def _places(dataset: Any) -> set[str]:
    """The files of a dataset that is made of files."""
    return {os.path.realpath(path) for path in getattr(dataset, "paths", ())}


SOURCES.add(Source("timm", "datasets that timm knows by name", TimmSpec, load_timm))
