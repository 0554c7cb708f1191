"""Dense and slim on runtimes that they were not made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import StructPruneError
from .latency import Source, benchmark
from .runtime import Runtime


def time_also(
    runtimes: Sequence[Runtime],
    networks: Callable[[Runtime], Mapping[str, Source]],
    *,
    seconds: float = 10.0,
    pin: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """A row for each runtime, `seconds` on each: what `dense` and `slim` of `networks(runtime)` take there.

    An engine that fails on a network leaves its error in its row, and no figures.
    """
    rows = []
    for number, runtime in enumerate(runtimes):
        row: dict[str, Any] = {"runtime": runtime.name, **runtime.to_dict(), "dense_ms": None, "slim_ms": None}
        row |= {"speedup": None, "ci95": None, "notes": [], "error": None}
        try:
            found = benchmark(
                networks(runtime),
                runtime=runtime,
                seconds=seconds,
                pin=pin,
                progress=lambda share, n=number: progress((n + share) / len(runtimes)),  # type: ignore[misc]
            )
        except StructPruneError as error:
            row["error"] = str(error)
        except Exception as error:  # whatever an engine raises on a network that it does not know
            lines = str(error).strip().splitlines() or [""]
            row["error"] = f"{type(error).__name__}: {lines[0][:200]}"
        else:
            row |= {"dense_ms": found.ms["dense"], "slim_ms": found.ms["slim"], "notes": found.notes}
            row |= {"speedup": found.speedup["slim"], "ci95": list(found.ci95["slim"])}
        rows.append(row)
        progress((number + 1) / len(runtimes))
    return rows
