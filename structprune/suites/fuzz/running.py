"""Many random networks in several processes; one that kills its process is a record like any other."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch
from rich.progress import track

from ..command_line import console
from ..random_networks import Case
from .outcomes import DIED, Outcome, Record, Settings, examine


def prepare(in_child: bool = True) -> None:
    """Sets up a process for tiny networks that fail in every way: one thread, no warnings, no logs."""
    if in_child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the children
    torch.set_num_threads(1)  # the networks are tiny
    warnings.simplefilter("ignore")
    # torch reports on failures that are raised, caught and counted here: on stderr, and whole graphs on stdout
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    torch._C._jit_onnx_log = lambda *_: None  # type: ignore[attr-defined]


def run_all(cases: Sequence[Case], settings: Settings, peers: int, jobs: int) -> Generator[Record]:
    """Examines networks in processes of their own, or in this one where `jobs` is 1.

    A case whose process dies is tried again alone, and is one that raised if it dies again.

    Args:
        cases: The networks.
        settings: What is asked of each.
        peers: So many of them, the first ones, go through torch-pruning too.
        jobs: Processes at once.

    Returns:
        The records, as they come.
    """
    with_peer = {case: number < peers for number, case in enumerate(cases)}
    if jobs == 1:
        prepare(in_child=False)
        yield from (examine(case, settings, peer) for case, peer in with_peer.items())
        return
    waiting = list(with_peer)
    while waiting:
        done: set[Case] = set()
        with _pool(jobs) as pool:
            futures: dict[Future[Record], Case] = {pool.submit(examine, c, settings, with_peer[c]): c for c in waiting}
            try:
                for future in as_completed(futures):
                    yield future.result()
                    done.add(futures[future])
            except BrokenProcessPool:
                pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        waiting = [case for case in waiting if case not in done]
        for case in waiting[: 2 * jobs + 1]:  # those that may have been running
            yield _alone(case, settings, with_peer[case])
        waiting = waiting[2 * jobs + 1 :]


def collect(cases: Sequence[Case], settings: Settings, peers: int, jobs: int) -> tuple[list[Record], bool]:
    """Examines networks as `run_all` does, under a bar, until all are done or Ctrl-C.

    Args:
        cases: The networks.
        settings: What is asked of each.
        peers: So many of them, the first ones, go through torch-pruning too.
        jobs: Processes at once.

    Returns:
        The records, in the order of their seeds, and whether it was interrupted.
    """
    records: list[Record] = []
    interrupted = False
    running = run_all(cases, settings, peers, jobs)
    try:
        for record in track(running, "networks", total=len(cases), console=console, transient=True):
            records.append(record)
    except KeyboardInterrupt:
        interrupted = True
        running.close()
    return sorted(records, key=lambda record: record.case.seed), interrupted


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=prepare)


def _alone(case: Case, settings: Settings, peer: bool) -> Record:
    with _pool(1) as pool:
        try:
            return pool.submit(examine, case, settings, peer).result()
        except BrokenProcessPool:
            return Record(case, Outcome("raised", DIED), None)
