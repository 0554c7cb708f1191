"""What all threads of a process share: changed by one thread at a time, and put back as it was."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from .seeds import seed_torch

if TYPE_CHECKING:
    import torch

TORCH = "torch"  # the modules whose warnings a run does not show
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_lock = threading.RLock()
_held: dict[str, tuple[int, Callable[[], object]]] = {}  # of each switch: how many are within, and what puts it back


def _renew() -> None:
    global _lock
    _lock = threading.RLock()  # in a child process, where the thread that held it is not


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def alone() -> Iterator[None]:
    """One thread at a time is within, so that two can't put back each other's changes; it may enter again."""
    with _lock:
        yield


@contextmanager
def shared(name: str, switch: Callable[[], Callable[[], object]]) -> Iterator[None]:
    """A switch that all threads within want the same way, and that is put back when the last of them leaves.

    Args:
        name: of the switch; entering it again, in any thread, changes nothing.
        switch: sets it, and returns a function that puts it back.
    """
    with _lock:
        count, put_back = _held.get(name, (0, None))
        put_back = put_back or switch()
        _held[name] = count + 1, put_back
    try:
        yield
    finally:
        with _lock:
            count, put_back = _held.pop(name)
            if count > 1:
                _held[name] = count - 1, put_back
            else:
                put_back()


@contextmanager
def silent_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """Warnings of this category are not shown. One thread at a time is within, as their filters are the process's."""
    with alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@contextmanager
def silent_logger(name: str) -> Iterator[None]:
    """A logger tells of errors only. One thread at a time is within."""
    logger = logging.getLogger(name)
    with alone():
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers (Python's, NumPy's, torch's) are the same each time; afterwards they go on as before.

    One thread at a time is within, as another one's draws would change what is drawn here.
    """
    import numpy as np
    import torch

    with alone(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        python, legacy = random.getstate(), np.random.get_state()
        seed_torch(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


@contextmanager
def default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Tensors that a model creates without naming a dtype have this one; None changes nothing.

    One thread at a time is within.
    """
    import torch

    if dtype is None:
        yield
        return
    with alone():
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def full_float32() -> Iterator[None]:
    """Keeps torch on a GPU from rounding the factors of convolutions and matrix products to TF32's 10 bits.

    One thread at a time is within.
    """
    import torch

    with alone():
        cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
        as_is = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
        torch.set_float32_matmul_precision("highest")
        try:
            with cudnn.flags(**as_is, allow_tf32=False):
                yield
        finally:
            torch.set_float32_matmul_precision(precision)


@contextmanager
def only_tensors_unpickled() -> Iterator[None]:
    """Nothing in the pickles that libraries load by `torch.load` is run, whatever they ask of it."""
    with shared("pickles", _only_tensors):
        yield


def _only_tensors() -> Callable[[], object]:
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load's own
    before = os.environ.get(name)
    os.environ[name] = "1"
    return lambda: os.environ.pop(name) if before is None else os.environ.update({name: before})


@contextmanager
def memory_reused() -> Iterator[None]:
    """Large blocks of memory that are freed serve the next tensors, instead of going back to the system.

    glibc maps each block over 32 MB anew, page by page, which takes longer than to compute on it (40 sums and products
    of 60 MB: 1.6 s of the system beside 0.3 s of the process; 0.05 s within). All that is kept goes back at the end.
    With another C library nothing changes.
    """
    with shared("memory reused", _reuse_memory):
        yield


def _reuse_memory() -> Callable[[], object]:
    try:
        library = ctypes.CDLL(None)
        set_option, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError, TypeError):  # no glibc, or Windows
        return lambda: None
    set_option(_MMAP_THRESHOLD, 2**30)
    set_option(_TRIM_THRESHOLD, 2**31 - 1)

    def put_back() -> None:
        set_option(_MMAP_THRESHOLD, 2**25)  # glibc's own, which it comes to by itself
        set_option(_TRIM_THRESHOLD, 2**26)
        trim(0)

    return put_back


@contextmanager
def settings_kept() -> Iterator[None]:
    """Generators of random numbers (Python's, NumPy's, torch's) and filters of torch's warnings are as they were.

    Of several threads within, the last one that leaves puts back what the first one came upon.
    """
    with shared("settings", _settings):
        yield


def _settings() -> Callable[[], None]:
    import numpy as np
    import torch

    python, legacy, filters = random.getstate(), np.random.get_state(), list(warnings.filters)
    generators = ExitStack()
    generators.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))

    def put_back() -> None:
        generators.close()
        random.setstate(python)
        np.random.set_state(legacy)
        own = [entry for entry in warnings.filters if entry in filters or _module(entry) != TORCH]
        warnings.filters[:] = own  # type: ignore[index]  # with those of libraries that were imported meanwhile

    return put_back


def _module(entry: Any) -> str:
    """What a filter says of the modules that warn."""
    return str(getattr(entry[3], "pattern", entry[3]))
