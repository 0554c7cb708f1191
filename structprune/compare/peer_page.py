"""compare.html of a recipe by structprune and by torch-pruning, of the same parts as that of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..fronts import front_of
from ..report.headline import SHARES, share_interval
from ..report.html import render_page
from ..report.page_data import StageQuality, point_cloud, quality_bars
from ..report.verdict import factor_in_words
from ..store import atomic_files
from .ranking import Measured, Stated, clause, listed, ranked
from .records import Comparison, Row
from .rows import OURS
from .run_page import shades_of, width_bars, width_stages
from .run_records import Fronts, LayerWidths
from .run_rows import Cell, TextRow
from .table import verdict_on


def write_comparison_page(result: Comparison, folder: Path) -> Path:
    """Writes the page of a comparison with torch-pruning.

    Args:
        result: The comparison.
        folder: That of the comparison.

    Returns:
        The path of compare.html.
    """
    page = folder / "compare.html"
    atomic_files.write_text(page, render_comparison(result))
    return page


def render_comparison(result: Comparison) -> str:
    """A page of a recipe by structprune and by torch-pruning.

    Args:
        result: The comparison.

    Returns:
        HTML that needs nothing beside it.
    """
    rows = result.finished()
    names, widths = [row.network for row in rows], _widths(result)
    return render_page(
        "compare.html",
        heading=f"{result.model}: {listed(names)} side by side",
        verdict=_verdict(result),
        notes=_notes(result),
        names=names,
        shades=shades_of(len(rows)),
        rows=_rows(result),
        links=[f"{row.network}/report.html" if row.tool == OURS else "" for row in rows],
        bench="",
        metric=result.metric,
        fronts=_fronts(result),
        no_quality="no network was made",
        no_speed="",
        stage_rows=_stage_rows(result),
        stages=width_stages(widths),
        group_count=len(widths),
        has_units=False,
        recipe=None,
        places=_places(result),
        plots=_plots(result, widths),
    )


def _interval(result: Comparison, value: float) -> tuple[float, float] | None:
    if result.metric not in SHARES or not result.images or not 0 <= value <= 1:
        return None
    return share_interval(value, result.images)


def _text(result: Comparison, value: float) -> str:
    return f"{100 * value:.1f} %" if result.metric in SHARES else f"{value:.4f}"


def _verdict(result: Comparison) -> str:
    rows = result.finished()
    failed = [row.network for row in result.failed()]
    parts = [f"{listed(failed)} could not be made"] if failed else []
    if len(rows) < 2:
        return "; ".join([*parts, "there is nothing to compare with"])
    speeds = ranked("speedup", [Measured(row.network, row.speedup, row.ci95) for row in rows], True)
    finals = [Measured(row.network, row.quality.final, _interval(result, row.quality.final)) for row in rows]
    qualities = ranked(result.metric, finals, result.higher_is_better)
    faster = [Stated(row.network, row.speedup, factor_in_words(row.speedup, row.ci95)[0]) for row in rows]
    better = [Stated(row.network, row.quality.final, _text(result, row.quality.final)) for row in rows]
    return "; ".join([*parts, clause("speed", speeds, faster), clause(result.metric, qualities, better)])


def _notes(result: Comparison) -> list[str]:
    timing: list[str] = next((row.timing for row in result.finished() if row.timing), [])
    return [*result.notes, *timing, *(f"no {row.network}: {row.error}" for row in result.failed())]


def _rows(result: Comparison) -> list[TextRow]:
    rows = result.finished()
    return [
        TextRow("faster than dense", [_speed(row) for row in rows]),
        TextRow(f"{result.metric}, slim", [_quality(result, row.quality.final) for row in rows]),
        TextRow(f"{result.metric}, dense", [Cell(_text(result, result.dense.quality)) for _ in rows]),
        TextRow("MACs", [Cell(f"{row.cut:.2f}× fewer", f"{row.macs:,}") for row in rows]),
        TextRow("parameters", [Cell(f"{row.params:,}") for row in rows]),
        TextRow("importance kept", [Cell(_share(row.kept_importance), f"by {result.kept_by}") for row in rows]),
        TextRow("gate", [Cell(verdict_on(row.gate)) for row in rows]),
        TextRow("planned in", [_planned(row) for row in rows]),
    ]


def _speed(row: Row) -> Cell:
    factor, remark = factor_in_words(row.speedup, row.ci95)
    low, high = row.ci95
    return Cell(factor, f"95 %: {low:.2f} to {high:.2f}{remark}; {row.ms:.3g} ms")


def _quality(result: Comparison, value: float) -> Cell:
    interval = _interval(result, value)
    if interval is None:
        return Cell(_text(result, value))
    low, high = interval
    return Cell(_text(result, value), f"95 %: {100 * low:.1f} to {100 * high:.1f} %, n = {result.images}")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _planned(row: Row) -> Cell:
    seconds = "–" if row.seconds is None else f"{row.seconds:.1f} s"
    search = "" if row.search_seconds is None else f"and {row.search_seconds:.1f} s to search for its ratio; "
    return Cell(seconds, f"{search}{row.peak_bytes / 2**20:,.0f} MiB at most")


def _places(result: Comparison) -> list[TextRow]:
    rows, machine = result.finished(), result.environment
    processor = Cell(machine.processor, f"{machine.cores} cores")
    return [
        TextRow("processor", [processor for _ in rows]),
        TextRow("runtime", [Cell(result.runtime, "timed in turns") for _ in rows]),
    ]


def _stages(result: Comparison) -> dict[str, list[StageQuality]]:
    stages = {}
    for row in result.finished():
        quality = row.quality
        values = {"dense": result.dense.quality, "as cut": quality.pruned}
        values |= {} if quality.recovered is None else {"recovered": quality.recovered}
        values["in the end"] = quality.final
        stages[row.network] = [StageQuality(words, value, _interval(result, value)) for words, value in values.items()]
    return stages


def _stage_rows(result: Comparison) -> list[TextRow]:
    stages = _stages(result)
    tables = [{stage.words: stage.value for stage in line} for line in stages.values()]
    names = dict.fromkeys(name for table in tables for name in ("dense", "as cut", "recovered") if name in table)
    return [
        TextRow(name, [_quality(result, table[name]) if name in table else Cell("–") for table in tables])
        for name in [*names, "in the end"]
    ]


def _fronts(result: Comparison) -> Fronts:
    sign = 1.0 if result.higher_is_better else -1.0
    rows = result.finished()
    return Fronts(
        macs=front_of((row.macs, sign * row.quality.final, row.network) for row in rows),
        speed=front_of((1 / row.speedup, sign * row.quality.final, row.network) for row in rows),
    )


def _widths(result: Comparison) -> list[LayerWidths]:
    names = [row.network for row in result.finished()]
    widths = []
    for group in result.widths:
        kept = [group.kept.get(name) for name in names]
        is_same = len({*kept}) == 1
        widths.append(
            LayerWidths(name=group.name, channels=group.channels, kept=kept, shared=[None] * len(names), same=is_same)
        )
    return widths


def _plots(result: Comparison, widths: list[LayerWidths]) -> dict[str, Any]:
    rows, fronts = result.finished(), _fronts(result)
    if not rows:
        return {}
    names, shades = [row.network for row in rows], shades_of(len(rows))
    finals = [row.quality.final for row in rows]
    options: dict[str, Any] = {"y": finals, "y_intervals": [_interval(result, value) for value in finals]}
    options |= {"title": result.metric, "names": names, "shades": shades}
    macs, speeds = [row.macs / 1e6 for row in rows], [row.speedup for row in rows]
    intervals = [row.ci95 for row in rows]
    plots = {
        "macs": point_cloud(
            macs, [None] * len(rows), "million MACs", front=fronts.macs, fewer_is_better=True, **options
        ),
        "speed": point_cloud(
            speeds, intervals, "times as fast as dense", front=fronts.speed, fewer_is_better=False, **options
        ),
        "quality": quality_bars(_stages(result), result.metric, shades),
    }
    return plots | ({"widths": width_bars(widths, names)} if widths else {})
