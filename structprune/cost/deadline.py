"""How long planning may measure: what is bounded on every machine, whatever a network takes there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Deadline:
    """`seconds` from now on, by `now`; a step that has begun is finished, and none is begun after it."""

    def __init__(self, seconds: float = math.inf, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._now = seconds, now
        self._start = now()

    @property
    def spent(self) -> float:
        return self._now() - self._start

    @property
    def left(self) -> float:
        return max(0.0, self.seconds - self.spent)

    @property
    def over(self) -> bool:
        return self.spent >= self.seconds
