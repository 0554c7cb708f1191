"""The multiples that a plan takes unless it is given others: those of this machine's runtime, learned once.

Where nothing may be timed, a table of what onnxruntime's kernels are written for stands in.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import date

from filelock import FileLock, Timeout

from ..errors import BudgetError
from ..plan.alignment import Multiples, check_multiples
from ..progress import Reporter
from ..runtimes.machine import environment
from ..runtimes.runtime import Runtime
from ..user_folders import cache_folder
from .cache import held, keep
from .cached_records import Standard, StandardEntry
from .deadline import Deadline
from .learning import learn_multiples, multiples_are_kept
from .measured_planning import wants_latency

SWITCH = "STRUCTPRUNE_TIMING"  # off: nothing is timed to plan
SECONDS = 60.0  # that learning may take, once on a machine
_WHAT = "finding the channel counts that this machine's onnxruntime is fast with, once"


def may_time() -> bool:
    """Says whether plans may time anything, by STRUCTPRUNE_TIMING.

    Returns:
        False where it is off.

    Raises:
        BudgetError: It is neither on nor off.
    """
    switch = os.environ.get(SWITCH, "on").lower()
    if switch not in ("on", "off"):
        raise BudgetError(f"{SWITCH}={switch}: give on or off")
    return switch == "on"


def check_may_time(budget: Mapping[str, object], other: str = "") -> None:
    """Checks that nothing is asked for that only timing can give, where nothing may be timed.

    Args:
        budget: What was asked for.
        other: What else needs costs, for the message; empty if nothing does.

    Raises:
        BudgetError: The budget bounds a speed or `other` is named, and STRUCTPRUNE_TIMING is off.
    """
    if other and not may_time():
        raise BudgetError(f"{other} needs costs, which are timed, and {SWITCH}=off allows no timing: set it to on")
    if wants_latency(budget) and not may_time():
        bounds = " and ".join(f"{name}={value:g}" for name, value in budget.items() if wants_latency({name: value}))
        raise BudgetError(
            f"a budget of {bounds} is met by timing networks, and {SWITCH}=off allows none: set it to on, or give "
            "macs, params or channels"
        )


def standard_multiples(runtime: Runtime | None = None) -> Standard:
    """Gives the multiples of a runtime, kept in memory or on disk, or learned now, in 10 to 60 seconds.

    Processes that plan at the same time wait for one of them to learn. Multiples that timings did not agree on are kept
    for the day (`learn_multiples` learns them anew).

    Args:
        runtime: By default onnxruntime on this CPU.

    Returns:
        The multiples with notes on them; those of `known_multiples` if STRUCTPRUNE_TIMING is off or learning fails.

    Raises:
        BudgetError: STRUCTPRUNE_TIMING is neither on nor off.
    """
    if not may_time():
        return Standard(known_multiples(), (f"{_table()} ({SWITCH}=off)",))
    try:
        chosen = runtime or Runtime()
        return multiples_of_the_day(chosen, str(cache_folder()), date.today().isoformat())
    except Exception as error:  # no runtime here, no home, no disk left: none of it ends a plan
        lines = str(error).strip().splitlines()
        return Standard(known_multiples(), (f"{_table()} ({type(error).__name__}: {lines[0] if lines else ''})",))


def known_multiples() -> Multiples:
    """Gives the multiples of onnxruntime's float32 kernels by this processor's instructions.

    Convolutions run on blocks of as many channels as two vectors of AVX2 or one of AVX-512 hold: 8, or 16, to which
    their channels are padded (MLAS, `NchwcBlockSize`: 8 on x86, 16 with AVX-512, and 16 with NEON, where there are
    blocks). Matrix products take their second factor in panels of 16 columns everywhere.

    Returns:
        A number of channels for each kind of layer; where the processor is not known, 8 and 16.
    """
    instructions = environment().instructions.split()
    neon = "asimd" in instructions or platform.machine().lower() in ("arm64", "aarch64")
    block = 16 if neon or any(name.startswith("avx512f") for name in instructions) else 8
    return {"conv": block, "depthwise": block, "linear": 16}


def _table() -> str:
    return "widths are in multiples of what onnxruntime's kernels are written for, and not of what was timed here"


@functools.cache
def multiples_of_the_day(runtime: Runtime, folder: str, day: str) -> Standard:
    """The multiples of a runtime that the folder of measurements holds on this day, or that are learned now."""
    about = {"threads": runtime.threads, "dtype": runtime.dtype, "day": day}
    with _alone():
        today = None if multiples_are_kept(runtime) else held(StandardEntry, about, runtime.version)
        if today is not None:
            return today
        notes: list[str] = []
        with Reporter().bar(_WHAT) as progress:
            multiples = learn_multiples(runtime, deadline=Deadline(SECONDS), progress=progress, tell=notes.append)
        check_multiples(multiples)
        standard = Standard(multiples, tuple(notes))
        if notes:
            keep(StandardEntry, about, standard, runtime.version)
        return standard


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """While no other process learns here, which would disturb the timing; without where there can't be a lock."""
    lock = None
    with contextlib.suppress(OSError, NotImplementedError, Timeout):
        cache_folder().mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_folder() / ".steps.lock", timeout=3 * SECONDS)
        lock.acquire()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
