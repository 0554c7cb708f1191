"""Photographs out of Debian's packages of wallpapers, for calibration and for training without labels."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from shutil import which

import numpy as np
from PIL import Image

from ..data.image_files import SUFFIXES, converted
from ..errors import StructPruneError
from ..store import atomic_files

PACKAGES = ("gnome-backgrounds", "plasma-workspace-wallpapers", "ukui-wallpapers")
SHORTER = 768  # pixels of the shorter side that are kept: crops of a third of it are still as large as most inputs
LEAST = 8.0  # the standard deviation of grey values, of 255, under which a picture shows next to nothing
CLIENTS = ("apt-get", "dpkg-deb")


def fetch(package: str, folder: Path) -> int:
    """Downloads a Debian package by apt-get and keeps its pictures, one of each scene, made smaller.

    Args:
        package: The package's name.
        folder: Gets `PACKAGE-SCENE.jpg` of each; a name that is there is written anew.

    Returns:
        How many pictures it gave.

    Raises:
        StructPruneError: The clients are not installed, or the package can't be had.
    """
    if missing := [client for client in CLIENTS if which(client) is None]:
        raise StructPruneError(
            f"{missing[0]} is not installed, which Debian and its kin have: elsewhere name a folder of your own "
            "photographs in data.path or data.calibration.path"
        )
    with tempfile.TemporaryDirectory() as temporary:
        _run("apt-get", "download", "--quiet", package, at=temporary)
        (archive,) = Path(temporary).glob("*.deb")
        _run("dpkg-deb", "--extract", str(archive), "content", at=temporary)
        files = [path for path in Path(temporary, "content").rglob("*") if path.is_file() and not path.is_symlink()]
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        for scene, path in one_of_each_scene(files):
            picture = smaller(path)
            if picture is not None:
                atomic_files.write(folder / f"{package}-{scene}.jpg", partial(_save, picture))
                count += 1
    return count


def one_of_each_scene(files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Finds the largest picture of each scene.

    A scene that comes in several sizes, light and dark, has a folder `SCENE/contents/images…`, or files called
    `SCENE-l` and `SCENE-d`. Screenshots are previews of others.

    Args:
        files: All files of a package.

    Yields:
        The name of each scene, as letters, digits and hyphens, and its file.
    """
    scenes: dict[str, Path] = {}
    for path in sorted(files):
        if path.suffix.lower() not in SUFFIXES or path.stem == "screenshot":
            continue
        sized = path.parent.name.startswith("images") and path.parent.parent.name == "contents"
        scene = path.parents[2].name if sized else re.sub(r"-[ld]$", "", path.stem)
        scene = re.sub(r"[^A-Za-z0-9]+", "-", scene).strip("-")
        if scene not in scenes or path.stat().st_size > scenes[scene].stat().st_size:
            scenes[scene] = path
    yield from sorted(scenes.items())


def smaller(path: Path) -> Image.Image | None:
    """A picture in RGB, its shorter side at most `SHORTER` pixels; None if it can't be read or shows nothing."""
    try:
        with Image.open(path) as file:
            picture = converted(file, "RGB")
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError and others
        return None
    scale = SHORTER / min(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture if float(np.asarray(picture.convert("L")).std()) >= LEAST else None


def _save(picture: Image.Image, aside: Path) -> None:
    picture.save(aside, format="JPEG", quality=95)


def _run(*command: str, at: str) -> None:
    try:
        subprocess.run(command, cwd=at, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).splitlines() if line.startswith("E:")]
        raise StructPruneError(f"{' '.join(command)}: {lines[-1] if lines else 'failed'}") from error
