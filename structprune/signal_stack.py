"""Keeps the thread's alternate signal stack, on which Python's signal handlers run on Linux.

A library may set one of its own and put back, when it is done, what was there when it began: of two networks that are
closed in the order in which they were opened, the second then puts back the first one's, whose memory is gone. From
there on any signal (Ctrl-C, the end of a child process that a data loader waits for) ends the process without a word.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Puts the calling thread's signal stack back after what runs inside."""
    if sys.platform != "linux":
        yield
        return
    library, stack = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(stack))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(stack), None)
