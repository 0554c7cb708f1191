"""How much memory scoring and recovery may take for one layer or group, and allocations that fail.

Networks with wide windows ask for matrices that no machine has: the second moments of 65,536 inputs are 34 GB. So the
memory of each piece of work is estimated first and kept under a bound: by working in parts, on fewer rows, or another
way to the same result, which a note mentions. The bound is for what comes on top of the network, its weights, the
images and one forward pass, for one layer or one group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

LIMIT = 2 * 2**30  # bytes
_FAILED = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc")


def allocation_failed(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: torch raises plain RuntimeErrors on the CPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _FAILED)


def amount(size: float) -> str:
    """A number of bytes for a message: `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def parts(count: int, each: float, limit: float) -> Iterator[slice]:
    """Slices of `count` items of `each` bytes, as many at a time as fit into `limit`, at least one."""
    length = max(1, int(limit // max(each, 1)))
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))
