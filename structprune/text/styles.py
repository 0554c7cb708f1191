"""What rendered text looks like: fonts, sizes, layouts, words and backgrounds, in three styles that share none of them.

Calibration, choices and the final measurement each have a style of their own, so that quality is measured on text
such as was never seen. What is trained on looks like what calibrates, in more sizes and words. Fonts come with
matplotlib, photographs with scikit-image and scikit-learn.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from PIL import Image, ImageFont

from ..errors import RecipeError

_FONTS = "matplotlib/mpl-data/fonts/ttf"


@dataclass(frozen=True)
class Style:
    """How text looks.

    Attributes:
        fonts: Files of matplotlib's by their names, others by their whole paths.
        sizes: Of letters, in pixels of an em.
        layouts: Names of functions in `pages`.
        words: To choose from.
        photographs: Files inside packages, behind some of the text.
        invented: The share of words that are any letters, so that no reader learns the others by heart.
    """

    fonts: tuple[str, ...]
    sizes: tuple[int, ...]
    layouts: tuple[str, ...]
    words: tuple[str, ...]
    photographs: tuple[str, ...]
    invented: float = 0.0


_COMMON = """
about above account across action address after again against agree allow almost along already also always among amount
animal answer appear apply area around arrive article autumn avoid balance bank battle beach beautiful because become
before begin behind believe below beside better between beyond bicycle blood board body border bottle bottom branch
bread break bridge bright bring brother brown build business button camera cannot captain carry castle catch cause
center certain chair chance change charge check church circle citizen class clean clear climb clock close cloud coffee
collect colour common company compare complete condition consider contain continue control copper corner correct cotton
could country course cover create cross crowd current danger daughter decide degree depend describe desert design desk
detail develop different dinner direct discover distance divide doctor dollar double dream drink drive during early
earth east educate effect eight either electric element empty energy engine enough enter equal escape evening event
every exact example except excite exercise expect explain express fabric face factory family famous farm father favour
"""
_OTHER = """
feather festival field fight figure final finger finish flower follow foreign forest forget forward frame fresh friend
fruit further garden gather general gentle glass gold govern grand grass great green ground group grow guess guide
harbour health heart heavy height history holiday honest hospital however human hundred hurry husband imagine important
inch include increase indicate industry insect instant instrument interest invent iron island journey judge jump
kitchen knife knowledge ladder language large laugh leather leave length letter level library lift light limit liquid
listen little lovely machine magazine magnet major manage market master material matter measure medicine member memory
merchant method middle might million minute mirror modern moment money month moon morning mother motion mountain mouth
music narrow nation natural nearly needle neighbour never night noise north notice number object observe ocean offer
office often opposite orange order other outside oxygen paint palace paper parent party pattern people perhaps period
"""
_FEW = """
person phrase picture piece plain planet plant platform please pocket position possible pound power practice prepare
present press problem process produce property provide public quarter question quick quiet radio railway rather reach
reason receive record region remember repeat report result return river road rubber sail scale school science season
second section sentence separate service several shape sharp should shoulder silver simple single sister smooth
"""

CALIBRATION = Style(
    fonts=(
        *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf"),
        *("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf"),
        *("cmr10.ttf", "cmtt10.ttf"),
    ),
    sizes=(12, 14, 16, 20, 24, 28, 36),
    layouts=("paragraph", "scattered"),
    words=tuple(_COMMON.split()),
    photographs=(
        *("skimage/data/astronaut.png", "skimage/data/rocket.jpg", "skimage/data/brick.png", "skimage/data/grass.png"),
        *("skimage/data/hubble_deep_field.jpg", "skimage/data/motorcycle_left.png", "skimage/data/gravel.png"),
    ),
)
TRAINING = replace(
    CALIBRATION, sizes=(11, 12, 14, 16, 19, 20, 21, 24, 25, 27, 28, 29, 31, 33, 34, 36, 38), invented=0.3
)
CHOICE = Style(
    fonts=("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "cmti10.ttf"),
    sizes=(17, 23, 30),
    layouts=("list",),
    words=tuple(_FEW.split()),
    photographs=("skimage/data/camera.png", "skimage/data/ihc.png"),
)
HELD_OUT = Style(
    fonts=("STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf", "cmss10.ttf", "cmb10.ttf"),
    sizes=(13, 15, 18, 22, 26, 32),
    layouts=("columns", "table", "sign"),
    words=tuple(_OTHER.split()),
    photographs=(
        *("skimage/data/chelsea.png", "skimage/data/coffee.png"),
        *("sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"),
    ),
)


def word(style: Style, rng: np.random.Generator) -> str:
    """Draws a word as it may stand in a text: in small letters or capitals; a number, a price, a time or a code.

    Args:
        style: Has the words.
        rng: Draws.

    Returns:
        Letters, digits and signs that all fonts have.
    """
    if style.invented and rng.random() < style.invented:
        plain = "".join(rng.choice(list(ascii_lowercase), int(rng.integers(2, 11))))
    else:
        plain = style.words[int(rng.integers(len(style.words)))]
    number = int(rng.integers(1, 10 ** int(rng.integers(2, 5))))
    kinds = {
        plain: 0.45,
        plain.capitalize(): 0.18,
        plain.upper(): 0.12,
        plain + ".,:;!?"[int(rng.integers(6))]: 0.06,
        f"({plain})": 0.02,
        str(number): 0.07,
        f"{number / 100:.2f}": 0.04,
        f"{number % 24}:{number % 60:02}": 0.03,
        f"{plain[:2].upper()}-{number}": 0.03,
    }
    return str(rng.choice(list(kinds), p=list(kinds.values())))


def font(style: Style, size: int, rng: np.random.Generator) -> ImageFont.FreeTypeFont:
    """Draws a font of a style, of `size` pixels."""
    name = style.fonts[int(rng.integers(len(style.fonts)))]
    return _font(name if os.path.isabs(name) else str(_file(f"{_FONTS}/{name}")), size)


def background(
    style: Style, size: tuple[int, int], rng: np.random.Generator, part: tuple[float, float] = (0.4, 1.0)
) -> np.ndarray:
    """Draws what is behind text: one colour, a shade from one to another, or a part of a photograph.

    Args:
        style: Has the photographs.
        size: Height and width.
        rng: Draws.
        part: Between which shares of a photograph's side is shown.

    Returns:
        Pixels of shape (height, width, 3), from 0 to 255, of type uint8.
    """
    height, width = size
    kind = rng.random()
    if kind < 0.5:
        colours = _plain(rng), _plain(rng) if kind < 0.15 else None
        first = colours[0]
        last = first if colours[1] is None else np.clip(colours[1], first - 40, first + 40)
        share = np.linspace(0, 1, width)[None, :, None]
        return np.broadcast_to(first * (1 - share) + last * share, (height, width, 3)).astype(np.uint8)
    name = style.photographs[int(rng.integers(len(style.photographs)))]
    image = _photograph(str(_file(name)))
    across = min(image.width, image.height * width / height) * rng.uniform(*part)
    down = across * height / width
    left, top = rng.uniform(0, image.width - across), rng.uniform(0, image.height - down)
    edges = (left, top, left + across, top + down)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, edges))


def _plain(rng: np.random.Generator) -> np.ndarray:
    """A colour; four of five are light."""
    return rng.uniform(185, 256, 3) if rng.random() < 0.8 else rng.uniform(0, 90, 3)


@lru_cache(maxsize=64)
def _file(name: str) -> Path:
    package, _, inner = name.partition("/")
    spec = find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / inner if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise RecipeError(f"{name}, of which text is rendered, is missing: pip install 'structprune[samples]'")
    return path


@lru_cache(maxsize=1024)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=16)
def _photograph(path: str) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")
