"""Image files as a dataset that reads each when it is needed, and remembers which could not be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..errors import RecipeError
from .loading import Unreadable

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])
CHECKED_AT_ONCE = 50_000  # files whose headers are looked at before any work; of more, only as they are read


class ImageFiles(Dataset):
    """The images of files, each passed through `transform`, with its label if there are labels.

    A file that can't be read is left out of its batch, or with `replace` (for training) the next that can be read
    stands in for it. Which files were unreadable is shared by the processes of a loader, and `check_readable` raises
    RecipeError once they are more than the share `allowed`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int] | None,
        transform: Callable[[Any], Any],
        *,
        mode: str = "RGB",
        allowed: float = 0.0,
        replace: bool = False,
    ) -> None:
        self.paths, self.labels, self.transform = list(paths), None if labels is None else list(labels), transform
        self.mode, self.allowed, self.replace = mode, allowed, replace
        self.bad = torch.zeros(len(self.paths), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, indices: Sequence[int], *, replace: bool | None = None) -> ImageFiles:
        """A dataset of some of the files, in which none of the others stands in for one of them."""
        return ImageFiles(
            [self.paths[i] for i in indices],
            None if self.labels is None else [self.labels[i] for i in indices],
            self.transform,
            mode=self.mode,
            allowed=self.allowed,
            replace=self.replace if replace is None else replace,
        )

    def __getitem__(self, index: int) -> Any:
        if not -len(self.paths) <= index < len(self.paths):
            raise IndexError(index)  # which ends a loop over the dataset
        for offset in range(len(self.paths)):
            position = (index + offset) % len(self.paths)
            image = self._read(position)
            if image is not None:
                pixels = self.transform(image)
                return pixels if self.labels is None else (pixels, self.labels[position])
            if not self.replace:
                return Unreadable()
        return Unreadable()

    @property
    def unreadable(self) -> list[Path]:
        """The files that could not be read so far."""
        return [self.paths[i] for i in self.bad.nonzero().flatten().tolist()]

    def check_readable(self) -> None:
        """Raises RecipeError if more files than allowed have turned out unreadable."""
        if len(bad := self.unreadable) > self.allowed * len(self.paths):
            raise unreadable(bad, len(self.paths), self.allowed)

    def _read(self, index: int) -> Image.Image | None:
        if self.bad[index]:
            return None
        try:
            with Image.open(self.paths[index]) as file:
                return converted(file, self.mode)
        except Exception:  # Pillow raises OSError, SyntaxError, ValueError and others for broken files
            self.bad[index] = True
            return None


def converted(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image to L or RGB. Of 16 bits a pixel it takes the upper 8; Pillow would turn most pixels white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert(mode)


def same_file(path: Path) -> tuple[int, int] | str:
    """What identifies a file whatever its name: a link, of either kind, is the file that it points to."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file in a folder, or a folder that it is in there, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def readable(paths: Sequence[Path], allowed: float) -> tuple[list[int], list[Path]]:
    """The places in `paths` of files that begin as images, and the files that do not.

    Raises RecipeError, which names files, where more than the share `allowed` do not.
    """
    if len(paths) > CHECKED_AT_ONCE:
        return list(range(len(paths))), []
    good, bad = [], []
    for index, path in enumerate(paths):
        try:
            with Image.open(path):
                good.append(index)
        except Exception:  # see above
            bad.append(path)
    if len(bad) > allowed * len(paths):
        raise unreadable(bad, len(paths), allowed)
    return good, bad


def unreadable(bad: Sequence[Path], files: int, allowed: float) -> RecipeError:
    """The error for too many broken files."""
    named = ", ".join(str(path) for path in bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return RecipeError(
        f"{len(bad)} of {files} images can't be read ({named}), and data.max_unreadable={allowed:g} allows "
        f"{int(allowed * files)}: mend or remove them, or allow more"
    )
