"""Datasets by timm's names: `torch/cifar10`, `hfds/…`, or a folder as timm reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, Subset

from ..errors import RecipeError
from ..user_code_calls import reason
from .image_files import ImageFiles, converted, same_file
from .preprocessing import Preprocessing, preprocessing
from .record import SOURCES, Data, Request, Source
from .spec import TimmSpec
from .splitting import VALIDATION, calibrated, split_off


def load_timm(spec: TimmSpec, request: Request) -> Data:
    """Loads a dataset of timm's.

    Raises:
        RecipeError: timm does not know the dataset, or it can't be reached.
    """
    wish = preprocessing(request.model, spec)
    opened = _opened(spec, spec.train_split)
    numbers = _numbers(opened)
    train = _dataset(spec, opened, wish, wish.transform(spec.augment))
    plain = _dataset(spec, _opened(spec, spec.train_split), wish, wish.transform())
    labels = getattr(plain, "labels", None)
    stays = list(range(len(plain)))
    if spec.test_split is None:
        stays, off = split_off(len(plain), spec.held_out, request.seed, labels)
        test: Any = _part(plain, off)
    else:
        held_out = _opened(spec, spec.test_split)
        test = _numbered(_dataset(spec, held_out, wish, wish.transform()), _numbers(held_out), numbers, spec)
        if _places(test) & _places(plain):
            raise RecipeError(
                f"data: the splits {spec.train_split} and {spec.test_split} of {spec.name} share files: set "
                "data.test_split=null to hold a part out"
            )
    validation = None
    if request.choosing:
        keep, off = split_off(
            len(stays), VALIDATION, request.seed + 1, None if labels is None else [labels[i] for i in stays]
        )
        validation, stays = _part(plain, [stays[i] for i in off]), [stays[i] for i in keep]
    source = _part(plain, stays, replace=True)
    example = calibrated(source, min(4, len(stays)), request.seed, request.task, spec.name)[0]
    calibration = None
    if spec.calibration is not None:
        calibration = calibrated(source, spec.calibration.images, request.seed, request.task, spec.name)
    return Data(
        example=example.inputs.args[0],
        test=test,
        train=_part(train, stays, replace=True),
        validation=validation,
        calibration=calibration,
        labelled=True,
        classes=len(numbers) or None,
        workers=spec.workers,
        notes=wish.notes,
        images=wish.described(),
        names=sorted(numbers, key=lambda name: numbers[name]),
    )


def _part(dataset: Any, indices: list[int], replace: bool = False) -> Any:
    """Some samples of a dataset. If `replace`, and it is one of files, another stands in for one that can't be read."""
    return dataset.at(indices, replace=replace) if isinstance(dataset, ImageFiles) else Subset(dataset, indices)


def _numbers(dataset: Any) -> dict[str, int]:
    """The number of each class by its name; empty if the dataset does not tell."""
    for holder in (getattr(dataset, "reader", None), dataset):
        numbers = getattr(holder, "class_to_idx", None)
        if isinstance(numbers, Mapping) and numbers:
            return {str(name): int(number) for name, number in numbers.items()}
    return {}


def _numbered(test: Any, own: dict[str, int], numbers: dict[str, int], spec: TimmSpec) -> Any:
    """`test` with the class numbers of training: timm numbers the classes of each split by themselves."""
    if own == numbers or not own or not numbers:
        return test
    if strange := sorted(own.keys() - numbers.keys()):
        raise RecipeError(
            f"data: {spec.name} {spec.test_split} has a class {strange[0]}, which {spec.train_split} lacks: "
            "give both the same classes"
        )
    if not isinstance(test, ImageFiles) or test.labels is None:
        raise RecipeError(
            f"data: {spec.train_split} and {spec.test_split} of {spec.name} number their classes differently"
        )
    names = {number: name for name, number in own.items()}
    test.labels = [numbers[names[label]] for label in test.labels]
    return test


class _Converted:
    """A transform of images in another mode than PIL's `mode`. A class, as workers need to pickle it."""

    def __init__(self, mode: str, transform: Callable[[Any], Any]) -> None:
        self.mode, self.transform = mode, transform

    def __call__(self, image: Any) -> Any:
        return self.transform(converted(image, self.mode))


def _opened(spec: TimmSpec, split: str) -> Any:
    """The dataset that timm creates by the name."""
    from timm.data import create_dataset

    try:
        dataset = create_dataset(spec.name, root=spec.root, split=split, download=spec.download)
    except BaseException as error:  # timm, torchvision and the hubs raise whatever they like
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        advice = "is its name and root right, and can its hub be reached from here?"
        raise RecipeError(f"data: timm can't open {spec.name} ({split}): {reason(error)}: {advice}") from error
    if isinstance(dataset, IterableDataset) or not len(dataset):
        raise RecipeError(f"data: {spec.name} ({split}) is a stream or empty: give a dataset with a length")
    return dataset


def _dataset(spec: TimmSpec, dataset: Any, wish: Preprocessing, transform: Callable[[Any], Any]) -> Any:
    if samples := _samples(dataset):  # timm would give the next image for one that it can't open, and count it twice
        paths, labels = zip(*samples, strict=True)
        return ImageFiles([Path(p) for p in paths], labels, transform, mode=wish.mode, allowed=spec.max_unreadable)
    dataset.transform = _Converted(wish.mode, transform)
    return dataset


def _samples(dataset: Any) -> list[tuple[str, int]]:
    """The files and labels of a dataset that is made of files."""
    samples = getattr(getattr(dataset, "reader", None), "samples", None) or getattr(dataset, "samples", None) or []
    plain = all(isinstance(s, (tuple, list)) and len(s) == 2 and Path(str(s[0])).is_file() for s in samples[:10])
    return [(str(path), int(label)) for path, label in samples] if plain else []


def _places(dataset: Any) -> set[Any]:
    """The files of a dataset that is made of files."""
    return {same_file(path) for path in getattr(dataset, "paths", ())}


SOURCES.add(Source("timm", "datasets that timm knows by name", TimmSpec, load_timm))
