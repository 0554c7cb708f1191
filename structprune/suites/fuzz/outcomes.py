"""One random network through structprune or torch-pruning: what became of it, and a smaller one that fails alike."""

from __future__ import annotations

import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ...errors import StructPruneError
from ..equality import Wrong
from ..random_networks import Case
from . import peer
from .checks import Figures, check

OURS, THEIRS = "structprune", "torch-pruning"
TIMED_OUT, DIED = "timed out", "the process died"  # kinds
BAD = ("wrong", "raised")
_SUITES = str(Path(__file__).parents[1]) + os.sep  # whose frames say nothing of where an error came from
Check = Callable[[Case], Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one network.

    Attributes:
        outcome: `right`: the slim network equals the masked dense one in float64, at two batch sizes, with its own and
            with random weights, and its MACs and parameters are the plan's and fvcore's. `wrong`: it runs and differs,
            or is counted wrongly. `raised`: structprune raised what is no error of its own, or the slim network does
            not run, or time ran out. `refused`: structprune raised one of its own errors. `unclear` (torch-pruning):
            it differs, and some block takes a statistic over channels, which zeroed channels change and removed ones
            do not.
        kind: The same for failures of the same sort.
        detail: What differs, or the message.
        figures: What was cut.
    """

    outcome: str
    kind: str = ""
    detail: str = ""
    figures: Figures | float | None = None

    @property
    def macs_cut(self) -> float | None:
        return self.figures.macs_cut if isinstance(self.figures, Figures) else self.figures


@dataclass(frozen=True)
class Record:
    """One network under both tools; `theirs` is None where torch-pruning was not asked."""

    case: Case
    ours: Outcome
    theirs: Outcome | None = None


@dataclass(frozen=True)
class Settings:
    """With `onnx` structprune's whole gate runs; the time-outs are seconds for one network."""

    onnx: bool = False
    timeout: float = 60.0
    peer_timeout: float = 10.0

    def of(self, tool: str) -> tuple[Check, float]:
        """What checks a network under this tool, and how long it may take."""
        if tool == OURS:
            return partial(check, onnx=self.onnx), self.timeout
        return peer.check, self.peer_timeout


class TimedOut(BaseException):
    """Not an Exception: it must pass through code that catches whatever a model raises."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def classify(case: Case, run: Check, timeout: float) -> Outcome:
    """What becomes of a network: whatever its check raises, or that it takes more than `timeout` seconds."""
    try:
        with limited(timeout):
            return Outcome("right", figures=run(case))
    except Wrong as wrong:
        return Outcome("wrong", wrong.kind, wrong.detail)
    except peer.Unclear as unclear:
        return Outcome("unclear", "a statistic over channels", str(unclear))
    except (StructPruneError, peer.Refused) as error:
        where = f"{error.stage}: " if hasattr(error, "stage") else ""
        return Outcome("refused", where + re.sub(r"\d+", "N", str(error))[:100], str(error))
    except TimedOut:
        return Outcome("raised", TIMED_OUT, f"more than {timeout:g} s")
    except Exception as error:  # whatever a tool or a broken network raises is what is looked for here
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_SUITES)]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
        kind = f"{getattr(error, 'stage', '?')}: {type(error).__name__} in {where}"
        return Outcome("raised", kind, (str(error).strip().splitlines() or [""])[0])


def examine(case: Case, settings: Settings, with_peer: bool) -> Record:
    """One network under structprune and, with `with_peer`, under torch-pruning."""
    ours = classify(case, *settings.of(OURS))
    return Record(case, ours, classify(case, *settings.of(THEIRS)) if with_peer else None)


def shrink(case: Case, run: Check, timeout: float) -> Case:
    """A network with as few blocks as possible, and with the plainest head, that fails in the same way."""
    outcome = classify(case, run, timeout)

    def smaller() -> Iterator[Case]:
        for i in range(len(case.blocks)):
            if len(case.blocks) > 1:
                yield replace(case, blocks=case.blocks[:i] + case.blocks[i + 1 :])
        if case.head != "pool":
            yield replace(case, head="pool")

    while True:
        for candidate in smaller():
            other = classify(candidate, run, timeout)
            if (other.outcome, other.kind) == (outcome.outcome, outcome.kind):
                case = candidate
                break
        else:
            return case
