"""What all threads of a process share: changed by one thread at a time, and put back as it was."""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TORCH = "torch"  # the modules whose warnings a run does not show
_lock = threading.RLock()


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
def settings_kept() -> Iterator[None]:
    """Generators of random numbers (Python's, NumPy's, torch's) and filters of torch's warnings are as they were."""
    import numpy as np
    import torch

    python, legacy, filters = random.getstate(), np.random.get_state(), list(warnings.filters)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
            own = [entry for entry in warnings.filters if entry in filters or _module(entry) != TORCH]
            warnings.filters[:] = own  # type: ignore[index]  # with those of libraries that were imported meanwhile


def _module(entry: Any) -> str:
    """What a filter says of the modules that warn."""
    return str(getattr(entry[3], "pattern", entry[3]))
