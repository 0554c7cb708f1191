"""The most memory that the process held while something ran."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import TracebackType

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """`bytes` is, after the block, the peak of the process's resident memory in it.

    Where the system can't start the peak anew (it can on Linux), it is that since the process began.
    """

    bytes = 0

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            lines = _STATUS.read_text().splitlines()
            self.bytes = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            import resource  # which only Unix has

            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.bytes = most if sys.platform == "darwin" else most * 1024
