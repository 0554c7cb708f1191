"""Runs of a sweep on this machine: each is `structprune run` in a process of its own, some at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..runtimes import environment

_LIBRARIES = ("OMP", "MKL", "OPENBLAS")  # that have NAME_NUM_THREADS
GRACE = 10.0  # seconds in which a process that is interrupted may clear up


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Attributes:
        name: The run's name.
        recipe: The file of its recipe.
        folder: Its output folder.
        log: The file that gets all it prints.
        directory: The current folder of its process, which relative paths of the recipe are relative to.
    """

    name: str
    recipe: Path
    folder: Path
    log: Path
    directory: Path


@dataclass(frozen=True)
class Ending:
    """How a run's process ended: its exit code, negative for a signal, and how long it took."""

    code: int
    seconds: float


Executor = Callable[[Sequence[Job]], Iterator[tuple[Job, Ending]]]
_nobody = threading.Event()  # which is never set


def execute(job: Job, threads: int | None = None, stopping: threading.Event = _nobody) -> Ending:
    """Makes a run in a process of its own and waits for its end. It goes on with what an interrupted one has left.

    Args:
        job: The run.
        threads: How many threads it may use, if the environment does not say; None for as many as torch likes.
        stopping: Once it is set, or if an exception such as Ctrl-C ends the waiting, the process is ended.

    Returns:
        How it ended.
    """
    if stopping.is_set():
        return Ending(-signal.SIGTERM, 0.0)
    command = [sys.executable, "-m", "structprune", "run", str(job.recipe), "--out", str(job.folder)]
    if (job.folder / "recipe.yaml").is_file():
        command.append("--resume")
    limits = {} if threads is None else {f"{name}_NUM_THREADS": str(threads) for name in _LIBRARIES}
    start = time.monotonic()
    with job.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=job.directory,
            env={**limits, **os.environ},  # what the user has set stays
            start_new_session=True,  # Ctrl-C is the sweep's, which ends its runs in turn
        )
        try:
            while not stopping.is_set():
                with suppress(subprocess.TimeoutExpired):
                    return Ending(process.wait(timeout=0.2), time.monotonic() - start)
            return Ending(_end(process), time.monotonic() - start)
        except BaseException:
            _end(process)
            raise


def not_started(job: Job, error: Exception) -> Ending:
    """Writes into a job's log why its process could not be started, or was lost.

    Args:
        job: The job.
        error: What was raised instead.

    Returns:
        An ending with exit code 1.
    """
    last = str(error).strip().splitlines()[-1:]
    job.log.write_text(f"error: {': '.join([type(error).__name__, *last])}\n", encoding="utf-8")
    return Ending(1, 0.0)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ends a process, which takes it as Ctrl-C, and kills it if it does not end. Returns its exit code.

    It is told twice: now and then one that is told as it starts goes on all the same (in a destructor, for one, Python
    drops the exception).
    """
    for _ in range(2):
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(GRACE / 2)
    process.kill()
    return process.wait()


def on_this_machine(count: int) -> Executor:
    """Makes what runs jobs here, in the order in which they are given.

    Args:
        count: How many processes there are at once. Each uses its share of the cores.

    Returns:
        A function that takes jobs and yields each with how it ended, as they end. Closing it, or an exception in it
        such as Ctrl-C, ends the processes.
    """

    threads = None if count == 1 else max(1, (environment().cores or 1) // count)

    def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, Ending]]:
        stopping = threading.Event()
        with ThreadPoolExecutor(count) as pool:
            futures = {pool.submit(execute, job, threads, stopping): job for job in jobs}
            try:
                for future in as_completed(futures):
                    job = futures[future]
                    try:
                        ending = future.result()
                    except OSError as error:
                        ending = not_started(job, error)
                    yield job, ending
            finally:
                stopping.set()
                for future in futures:
                    future.cancel()

    return run
