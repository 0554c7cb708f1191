"""Dense and slim on runtimes that they were not made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from ..errors import StructPruneError
from ..json_records import Interval, JsonRecord
from .latency import Benchmark, Source, benchmark
from .runtime import Runtime


class TimedOn(JsonRecord):
    """What dense and slim were timed on."""

    runtime: str = Field(description="the engine with its version; of `also` with its settings, too")
    engine: str = Field(description="what ran the networks")
    device: str = Field(description="`cpu` or `cuda`")
    dtype: str = Field(description="of both networks")
    threads: int = Field(description="intra-op threads")
    batch: int = Field(description="samples in a forward pass")


class OtherRuntime(TimedOn):
    """Dense and slim timed side by side on another runtime."""

    dense_ms: float | None = Field(default=None, description="median milliseconds of a forward pass")
    slim_ms: float | None = Field(default=None, description="likewise")
    speedup: float | None = Field(default=None, description="median of the ratios dense ÷ slim within a turn")
    ci95: Interval | None = Field(default=None, description="its 95 % interval")
    notes: list[str] = Field(default_factory=list, description="what disturbed the timing")
    error: str | None = Field(
        default=None, description="why the engine failed on the networks; the figures are `null` then"
    )


def time_also(
    runtimes: Sequence[Runtime],
    networks: Callable[[Runtime], Mapping[str, Source]],
    *,
    seconds: float = 10.0,
    pin: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> list[OtherRuntime]:
    """Times the dense and the slim network on each of several runtimes.

    Args:
        runtimes: The runtimes.
        networks: Gives `dense` and `slim` for a runtime.
        seconds: Of timing, on each runtime.
        pin: Whether the process stays on cores of its own meanwhile.
        progress: Gets the share that is done.

    Returns:
        A record for each runtime. An engine that fails on a network leaves its error there, and no figures.
    """
    rows = []
    for number, runtime in enumerate(runtimes):

        def advance(share: float, number: int = number) -> None:
            progress((number + share) / len(runtimes))

        try:
            timed = benchmark(networks(runtime), runtime=runtime, seconds=seconds, pin=pin, progress=advance)
        except StructPruneError as error:
            rows.append(_row(runtime, error=str(error)))
        except Exception as error:  # whatever an engine raises on a network that it does not know
            lines = str(error).strip().splitlines() or [""]
            rows.append(_row(runtime, error=f"{type(error).__name__}: {lines[0][:200]}"))
        else:
            rows.append(_row(runtime, timed))
        advance(1)
    return rows


def _row(runtime: Runtime, timed: Benchmark | None = None, error: str | None = None) -> OtherRuntime:
    """Every field is set, so that each row of a report has the same ones."""
    return OtherRuntime(
        runtime=runtime.name,
        **runtime.to_dict(),
        dense_ms=timed.ms["dense"] if timed else None,
        slim_ms=timed.ms["slim"] if timed else None,
        speedup=timed.speedup["slim"] if timed else None,
        ci95=timed.ci95["slim"] if timed else None,
        notes=timed.notes if timed else [],
        error=error,
    )
