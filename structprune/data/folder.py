"""Class folders, or a folder of images without labels: read as they are needed, by timm's transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RecipeError
from ..messages import unknown
from .image_files import SUFFIXES, ImageFiles, is_hidden, readable, same_file
from .preprocessing import Preprocessing, preprocessing
from .record import SOURCES, Data, Request, Source
from .spec import FolderSpec
from .splitting import VALIDATION, calibrated, split_off

EXAMPLES = 4  # images to trace, gate and export with
_TRAIN, _VALIDATION, _TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")


@dataclass(frozen=True)
class _Part:
    """Files of one split, with the class of each where classes count."""

    paths: list[Path]
    labels: list[int] | None

    def at(self, indices: Sequence[int]) -> _Part:
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return _Part([self.paths[i] for i in indices], labels)


def load_folder(spec: FolderSpec, request: Request) -> Data:
    """Loads the data of a folder.

    Raises:
        RecipeError: the folder is missing or empty, or does not fit the model.
    """
    wish = preprocessing(request.model, spec)
    root = Path(spec.path)
    if not root.is_dir():
        near = f": {root} is a file" if root.exists() else ""
        raise RecipeError(f"data.path: there is no folder {root}{near}")
    parts, classes, notes = _parts(root, spec, request)
    if spec.labels:
        _check_classes(len(classes), request.model)
        notes = [f"{len(classes)} classes, numbered in this order: {_listed(classes)}", *notes]
    _check_apart(parts)
    datasets = {
        name: ImageFiles(
            part.paths,
            part.labels,
            wish.transform(spec.augment if name == "train" else None),
            mode=wish.mode,
            allowed=spec.max_unreadable,
            replace=name == "train",
        )
        for name, part in parts.items()
    }
    plain = ImageFiles(
        parts["train"].paths,
        parts["train"].labels,
        wish.transform(),
        mode=wish.mode,
        allowed=spec.max_unreadable,
        replace=True,
    )
    first = calibrated(plain, min(EXAMPLES, len(plain)), request.seed, request.task, f"{root}")
    plain.check_readable()
    return Data(
        example=first[0].inputs.args[0],
        test=datasets["test"],
        train=datasets["train"],
        validation=datasets.get("validation"),
        calibration=_calibration(spec, wish, plain, parts, request),
        labelled=spec.labels,
        classes=len(classes) if spec.labels else None,
        workers=spec.workers,
        notes=(*wish.notes, *notes),
        images=wish.described(),
        names=classes,
    )


def _parts(root: Path, spec: FolderSpec, request: Request) -> tuple[dict[str, _Part], list[str], list[str]]:
    """The files of train, test and, if `request.choosing`, validation; the classes' names; notes."""
    train, validation, test = (_sub(root, names) for names in (_TRAIN, _VALIDATION, _TEST))
    notes: list[str] = []
    if train is None and (validation or test):
        split = validation or test
        raise RecipeError(f"data.path: {root} has {split.name} and no train: add train, or name one folder of classes")  # type: ignore[union-attr]
    classes = _classes(train or root) if spec.labels else []
    whole = _files(train or root, spec, classes, notes)
    splits = {
        name: _files(place, spec, classes, notes) for name, place in (("val", validation), ("test", test)) if place
    }
    if train is None or not splits:
        whole, rest = _apart(whole, spec.held_out, request.seed, "data.held_out")
        splits["test"] = rest
    parts = {"train": whole, "test": splits["test"] if "test" in splits else splits["val"]}
    if request.choosing:
        if "val" in splits and "test" in splits:
            parts["validation"] = splits["val"]
        else:
            parts["train"], parts["validation"] = _apart(whole, VALIDATION, request.seed + 1, "validation")
    lonely = [name for i, name in enumerate(classes) if i not in (parts["test"].labels or [])]
    if spec.labels and lonely:
        notes.append(f"no image of {_listed(lonely)} is held out: quality says nothing about it")
    return parts, classes, notes


def _apart(part: _Part, share: float, seed: int, key: str) -> tuple[_Part, _Part]:
    stays, off = split_off(len(part.paths), share, seed, part.labels)
    if not off:
        raise RecipeError(f"{key}: {len(part.paths)} images can't be split: give two or more of a class")
    return part.at(stays), part.at(off)


def _sub(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _images_in(folder: Path) -> list[Path]:
    """The images in a folder and below it, by timm's reader, in natural order, without hidden files."""
    from timm.data.readers.reader_image_folder import find_images_and_targets

    entries, _ = find_images_and_targets(str(folder), types=set(SUFFIXES))
    paths = [Path(path) for path, _ in entries]
    return [path for path in paths if not is_hidden(path, folder)]


def _classes(folder: Path) -> list[str]:
    """The names of the folders in `folder` that hold images, in natural order."""
    from timm.utils.misc import natural_key

    names = sorted({path.relative_to(folder).parts[0] for path in _images_in(folder) if path.parent != folder})
    return sorted(names, key=natural_key)  # to which 1 and 01, or a and A, are the same


def _files(folder: Path, spec: FolderSpec, classes: list[str], notes: list[str]) -> _Part:
    paths = _images_in(folder)
    if not paths:
        raise RecipeError(f"data.path: {folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    good, bad = readable(paths, spec.max_unreadable)
    if bad:
        notes.append(f"left out as unreadable: {', '.join(map(str, bad[:5]))}" + (" and more" if len(bad) > 5 else ""))
    paths = [paths[i] for i in good]
    if not spec.labels:
        return _Part(paths, None)
    flat = next((path for path in paths if path.parent == folder), None)
    if flat is not None:
        raise RecipeError(f"data.path: {flat} lies in no folder of a class: put it into one, or set data.labels=false")
    names = [path.relative_to(folder).parts[0] for path in paths]
    strange = sorted(set(names) - set(classes))
    if strange:
        raise RecipeError(f"data.path: {folder / strange[0]}: {unknown('class', strange[0], classes)}")
    if len(classes) < 2:
        raise RecipeError(
            f"data.path: {folder} has one class, {classes[0]}: give two or more, or set data.labels=false"
        )
    index = {name: i for i, name in enumerate(classes)}
    return _Part(paths, [index[name] for name in names])


def _check_classes(classes: int, model: object) -> None:
    outputs = getattr(model, "num_classes", classes)
    if isinstance(outputs, int) and outputs > 0 and outputs != classes:
        raise RecipeError(
            f"data.path has {classes} classes and the model {outputs}: set model.kwargs.num_classes={classes}, or "
            "data.labels=false"
        )


def _check_apart(parts: dict[str, _Part]) -> None:
    """Raises RecipeError if a file, under whatever name, is in two splits."""
    owners: dict[object, str] = {}
    for name, part in parts.items():
        for path in part.paths:
            other = owners.setdefault(same_file(path), name)
            if other != name:
                raise RecipeError(
                    f"data.path: {path} is in {other} and in {name}: keep held-out files in one split only"
                )


def _calibration(
    spec: FolderSpec, wish: Preprocessing, plain: ImageFiles, parts: dict[str, _Part], request: Request
) -> list | None:
    options = spec.calibration
    if options is None:
        return None
    if options.path is None and not options.files:
        return calibrated(plain, options.images, request.seed, request.task, f"{spec.path}")
    paths = [Path(name) for name in options.files]
    if options.path is not None:
        if not Path(options.path).is_dir():
            raise RecipeError(f"data.calibration.path: {options.path} is not a folder")
        paths = _images_in(Path(options.path))
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise RecipeError(f"data.calibration.files: there is no file {missing[0]}")
    own = _Part(paths, None)
    for name in parts:
        if name != "train":
            _check_apart({name: parts[name], "calibration": own})
    good, _ = readable(paths, spec.max_unreadable)
    others = ImageFiles([paths[i] for i in good], None, wish.transform(), mode=wish.mode, replace=True)
    return calibrated(others, options.images, request.seed, request.task, "data.calibration")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


SOURCES.add(Source("folder", "class folders, or images without labels, read from disk", FolderSpec, load_folder))
