"""One random network through structprune or torch-pruning: what became of it, and a smaller one that fails alike.

Part of tools/fuzz.py, where the outcomes are described.
"""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import fuzz_peer

from structprune.errors import StructPruneError
from tests.random_checks import Figures, Wrong, check
from tests.random_networks import Case

OURS, THEIRS, TIMED_OUT = "structprune", "torch-pruning", "timed out"
Check = Callable[[Case], Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one network; `kind` is the same for failures of the same sort, `figures` what was cut."""

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
        return fuzz_peer.check, self.peer_timeout


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
    try:
        with limited(timeout):
            return Outcome("right", figures=run(case))
    except Wrong as wrong:
        return Outcome("wrong", wrong.kind, wrong.detail)
    except fuzz_peer.Unclear as unclear:
        return Outcome("unclear", "a statistic over channels", str(unclear))
    except (StructPruneError, fuzz_peer.Refused) as error:
        where = f"{error.stage}: " if hasattr(error, "stage") else ""
        return Outcome("refused", where + re.sub(r"\d+", "N", str(error))[:100], str(error))
    except TimedOut:
        return Outcome("raised", TIMED_OUT, f"more than {timeout:g} s")
    except Exception as error:  # whatever a tool or a broken network raises is what is looked for here
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
        kind = f"{getattr(error, 'stage', '?')}: {type(error).__name__} in {where}"
        return Outcome("raised", kind, (str(error).strip().splitlines() or [""])[0])


def examine(case: Case, settings: Settings, peer: bool) -> Record:
    ours = classify(case, *settings.of(OURS))
    return Record(case, ours, classify(case, *settings.of(THEIRS)) if peer else None)


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
            found = classify(candidate, run, timeout)
            if (found.outcome, found.kind) == (outcome.outcome, outcome.kind):
                case = candidate
                break
        else:
            return case
