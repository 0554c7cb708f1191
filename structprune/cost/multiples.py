"""Which channel counts a runtime works with at no extra cost: it pads to its blocks, and has slow ways for odd ones.

Two layers in a chain are timed at a few widths between them, for each kind of layer. What they take is fitted by

    time = a + b · ⌈width / block⌉ · block + [width is no multiple of unit] · (c + d · width)

for every block and unit, and the simplest pair that fits about as well as the best is kept. Their least
common multiple is the runtime's *multiple*: no width between two multiples of it is faster than the next one up, so
keeping fewer channels gains nothing.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from ..graph.layers import KINDS
from ..process_state import seeded
from ..runtimes.runtime import Runtime
from .deadline import Deadline

WIDTHS = (64, 65, 66, 68, 70, 72, 74, 76, 78, 80, 81, 84, 88, 90, 92, 96, 97, 100, 104, 108, 112, 116, 120, 124, 128)
SIZES = (1, 2, 4, 8, 16, 32)  # of blocks and units that are tried
TOLERANCE = 1.15  # how much worse the fit of a simpler pair may be
PRECISION = 0.004  # of a timing: fits that come as near are all as good
OPENED = 3  # rounds after which networks are opened anew
PATIENCE = 5  # how many times as long it may take where other work hides the multiple
_SIDE, _OUTER = 28, 64  # of the chains: places on a side, and channels at both ends

Progress = Callable[[float], None]


def measure_multiples(
    runtime: Runtime,
    seconds: float = 2.0,
    progress: Progress = lambda share: None,
    deadline: Deadline | None = None,
) -> dict[str, list[int]]:
    """The multiples seen of each kind of layer on the runtime, in about `seconds` for each once its chains are made.

    One multiple, or several where timings don't agree (see `seen_multiples`), or none where the deadline came first.
    """
    until = deadline or Deadline()
    multiples_of_kinds: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(KINDS):

            def at(share: float, number: int = number) -> None:
                progress((number + share) / len(KINDS))

            rounds = _rounds(kind, Path(folder), runtime, seconds, at, until)
            multiples_of_kinds[kind] = sorted(seen_multiples(WIDTHS, rounds)) if len(rounds) >= 2 else []
    return multiples_of_kinds


def seen_multiples(widths: Sequence[int], rounds: Sequence[Sequence[float]]) -> set[int]:
    """The multiples that rounds of timings show, looked at in three ways: one, where no other work hides it.

    Each half of the rounds, by what a width takes in the quieter ones, as other work only ever makes it slower; and all
    of them, each by its own pace, as that may change between rounds.
    """
    t = np.array(rounds)
    pace = np.median(t, axis=1, keepdims=True)
    views = [np.quantile(t[::2], 0.25, axis=0), np.quantile(t[1::2], 0.25, axis=0), np.median(t / pace, axis=0)]
    return {multiple_of(widths, view) for view in views}


def multiple_of(widths: Sequence[int], times: Sequence[float] | np.ndarray) -> int:
    """The multiple that explains what the widths take (see the module)."""
    w, t = np.array(widths), np.array(times)
    fits = []
    for block, unit in itertools.product(SIZES, SIZES):
        columns = [np.ones(len(w)), -(-w // block) * block, w % unit != 0, (w % unit != 0) * w]
        _, residual = nnls(np.stack(columns, axis=1) / t[:, None], np.ones(len(w)))
        fits.append((residual, math.lcm(block, unit)))
    enough = max(TOLERANCE * min(residual for residual, _ in fits), PRECISION * math.sqrt(len(w)))
    return min(multiple for residual, multiple in fits if residual <= enough)


def _rounds(
    kind: str, folder: Path, runtime: Runtime, seconds: float, progress: Progress, until: Deadline
) -> list[list[float]]:
    """What the chain takes at each of WIDTHS, the best of a few runs, by rounds, until the multiple is plain."""
    rounds: list[list[float]] = []
    with runtime.active():
        prepared = []
        for width in WIDTHS:
            if until.over:
                return rounds
            chain, x = _chain(kind, width)
            prepared.append(runtime.prepare(chain, x, folder / f"{kind}_{width}.onnx"))
        start = time.perf_counter()
        spent, plain = 0.0, False
        while len(rounds) < 2 * OPENED or spent < seconds or (not plain and spent < PATIENCE * seconds):
            if len(rounds) % OPENED == 0:  # anew, as a network's place in memory moves its speed
                running = []
                for source in prepared:
                    if until.over:  # to open one may be to compile it
                        return rounds
                    running.append(runtime.open(source))
            if until.over:
                return rounds
            times = []
            for network in running if len(rounds) % 2 else running[::-1]:
                runs = []
                for _ in range(4):
                    before = time.perf_counter()
                    network.run()
                    runs.append(time.perf_counter() - before)
                times.append(min(runs))
            rounds.append(times if len(rounds) % 2 else times[::-1])
            spent = time.perf_counter() - start
            if spent >= seconds and len(rounds) % OPENED == 0:
                plain = len(seen_multiples(WIDTHS, rounds)) == 1
            progress(min(1.0, spent / seconds))
    return rounds


def _chain(kind: str, width: int) -> tuple[nn.Module, Tensor]:
    """`_OUTER` channels to `width` and back: by convolutions, with a depthwise one between, or by matrix products."""
    with seeded():
        if kind == "linear":
            layers = [nn.Linear(_OUTER, width, bias=False), nn.ReLU(), nn.Linear(width, _OUTER, bias=False)]
            return nn.Sequential(*layers), torch.randn(1, _SIDE * _SIDE, _OUTER)
        first = nn.Conv2d(_OUTER, _OUTER, 1, bias=False)  # so that the layout is settled
        between: list[nn.Module] = [nn.Conv2d(_OUTER, width, 1, bias=False), nn.ReLU()]
        if kind == "depthwise":
            between += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)]
            last = nn.Conv2d(width, _OUTER, 1, bias=False)
        else:
            last = nn.Conv2d(width, _OUTER, 3, padding=1, bias=False)
        return nn.Sequential(first, *between, last), torch.randn(1, _OUTER, _SIDE, _SIDE)
