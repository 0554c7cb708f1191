"""Photographs out of Debian's packages, of wallpapers and of things to learn the names of, for calibration and for
training without labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.image_files import SUFFIXES, converted
from ..errors import StructPruneError
from ..store import atomic_files
from .debian_packages import extracted, files_of, keep_notice

PACKAGES: dict[str, tuple[str, ...]] = {  # with globs of the files that are photographs, where others are drawings
    "gcompris-qt-data": tuple(
        f"*/{name}.rcc" for name in ("categorization", "clickgame", "details", "erase", "explore_*")
    ),
    "gnome-backgrounds": (),
    "lomiri-wallpapers-16.04": (),
    "lomiri-wallpapers-20.04": (),
    "mate-backgrounds": (),
    "plasma-workspace-wallpapers": (),
    "ukui-wallpapers": (),
    "tuxpaint-stamps-default": tuple(  # cut out, so after what they are put onto
        f"*/stamps/{kind}/*" for kind in ("animals", "food", "hobbies", "household", "plants", "sports", "vehicles")
    ),
}
DRAWN = "cartoon"  # folders of drawings
COPIES = 2  # pictures of each cut-out, on different photographs
EMBEDDED = re.compile(rb"RIFF(....)WEBP|\xff\xd8\xff[\xdb\xe0-\xef]", re.DOTALL)  # how WebP and JPEG files begin
SMALLEST = 120  # pixels of the shorter side: what is smaller is an icon
SHORTER = 768  # pixels of the shorter side that are kept: crops of a third of it are still as large as most inputs
OPAQUE = 0.98  # the share of a picture that shows something, from which it is not cut out
LEAST = 8.0  # the standard deviation of grey values, of 255, under which a picture shows next to nothing


def fetch(package: str, folder: Path) -> int:
    """Downloads a Debian package by apt-get and keeps its pictures, one of each scene, made smaller.

    Things that are cut out are put onto photographs that the folder has.

    Args:
        package: The package's name.
        folder: Gets `PACKAGE-SCENE.jpg` of each, and `PACKAGE.copyright.txt`, which says whose they are and under which
            licences; a name that is there is written anew.

    Returns:
        How many pictures it gave.

    Raises:
        StructPruneError: The clients are not installed, the package can't be had, or there is no photograph to put a
            thing onto.
    """
    with extracted(package, "name a folder of your own photographs in data.path or data.calibration.path") as content:
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        photographs = sorted(path for path in folder.glob("*.jpg") if not path.name.startswith(package))
        for scene, file in scenes(files_of(content), PACKAGES.get(package, ())):
            for number, picture in enumerate(_pictures(file, photographs, package, scene)):
                name = f"{package}-{scene}-{number}.jpg" if number else f"{package}-{scene}.jpg"
                atomic_files.write(folder / name, partial(_save, picture))
                count += 1
        keep_notice(content, package, folder)
    return count


def _pictures(file: Path | BytesIO, photographs: Sequence[Path], package: str, scene: str) -> Iterator[Image.Image]:
    """The picture of a file, or those that a thing that is cut out makes on photographs of other packages."""
    thing = cut_out(file)
    if thing is None:
        picture = smaller(file)
        yield from () if picture is None else (picture,)
        return
    if not photographs:
        raise StructPruneError(
            f"{package} has things that are cut out, and no photograph to put them onto is there: fetch another one "
            "first"
        )
    rng = np.random.default_rng(list(scene.encode()))
    for place in rng.choice(len(photographs), min(COPIES, len(photographs)), replace=False):
        with Image.open(photographs[place]) as photograph:
            yield pasted(thing, photograph.convert("RGB"), rng)


def cut_out(file: Path | BytesIO) -> Image.Image | None:
    """A thing on nothing, in RGBA and without an empty margin; None for other pictures, icons, and what can't be
    read."""
    try:
        with Image.open(file) as opened:
            if not opened.has_transparency_data:
                return None
            picture = opened.convert("RGBA")
    except Exception:  # as in `smaller`
        return None
    alpha = np.asarray(picture.getchannel("A"))
    box = picture.getchannel("A").getbbox()
    if box is None or (alpha > 127).mean() > OPAQUE or min(box[2] - box[0], box[3] - box[1]) < SMALLEST:
        return None
    return picture.crop(box)


def pasted(thing: Image.Image, photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Puts a thing onto a photograph.

    Args:
        thing: In RGBA.
        photograph: In RGB.
        rng: Decides its size, of 0.4 to 0.9 of the photograph's shorter side, its place, and whether it is mirrored.

    Returns:
        A new picture of the photograph's size.
    """
    scale = min(photograph.size) * rng.uniform(0.4, 0.9) / max(thing.size)
    thing = thing.resize([max(1, round(side * scale)) for side in thing.size], Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    place = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(photograph.size, thing.size, strict=True)]
    picture = photograph.copy()
    picture.paste(thing, (place[0], place[1]), thing.getchannel("A"))
    return picture


def scenes(files: Iterable[Path], globs: Sequence[str]) -> Iterator[tuple[str, Path | BytesIO]]:
    """Finds the pictures of a package, in files of their own or in Qt's resource files.

    Args:
        files: All files of a package.
        globs: Those that count; all where none are given.

    Yields:
        The name of each scene, and a file that can be read.
    """
    chosen = [
        path
        for path in files
        if (not globs or any(fnmatch(str(path), glob) for glob in globs)) and DRAWN not in path.parts
    ]
    yield from one_of_each_scene(chosen)
    for path in sorted(path for path in chosen if path.suffix == ".rcc"):
        for number, content in enumerate(embedded(path.read_bytes())):
            yield f"{path.stem.replace('_', '-')}-{number}", BytesIO(content)


def embedded(content: bytes) -> Iterator[bytes]:
    """WebP and JPEG files that lie uncompressed in another, as in Qt's resource files.

    Args:
        content: Of the file.

    Yields:
        What begins as such a file: a WebP file as a whole, of others all that follows.
    """
    for begin in EMBEDDED.finditer(content):
        start, length = begin.start(), begin.group(1)  # a WebP file says how long it is
        yield content[start : start + 8 + int.from_bytes(length, "little")] if length else content[start:]


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


def smaller(file: Path | BytesIO) -> Image.Image | None:
    """A picture in RGB, its shorter side at most `SHORTER` pixels; None if it can't be read, is an icon, or shows
    nothing."""
    try:
        with Image.open(file) as opened:
            opened.draft("RGB", (SHORTER, SHORTER))  # of a large JPEG no more is decoded than is needed
            picture = converted(opened, "RGB")
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError and others
        return None
    if min(picture.size) < SMALLEST:
        return None
    scale = SHORTER / min(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture if float(np.asarray(picture.convert("L")).std()) >= LEAST else None


def _save(picture: Image.Image, aside: Path) -> None:
    picture.save(aside, format="JPEG", quality=95)
