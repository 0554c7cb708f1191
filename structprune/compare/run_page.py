"""compare.html: finished runs side by side, on one page that stands alone, of the same parts as a run's own page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RecipeError
from ..report.html import render_page
from ..report.network_stages import folded
from ..report.page_data import StageQuality, bars, point_cloud, quality_bars
from ..store import atomic_files
from .run_records import ComparedRun, LayerWidths, RunComparison
from .run_rows import Cell, TextRow, place_rows, recipe_rows, run_rows

SHADES = 6  # colours that runs have in turn


class WidthStage(NamedTuple):
    """The groups of one stage of the network; without a name they are all."""

    name: str
    groups: tuple[LayerWidths, ...]

    @property
    def differing(self) -> int:
        """Of how many the runs keep other units."""
        return sum(not group.same for group in self.groups)


def render_runs(comparison: RunComparison) -> str:
    """A page of finished runs side by side.

    Args:
        comparison: The runs.

    Returns:
        HTML that needs nothing beside it.
    """
    runs = comparison.runs
    return render_page(
        "compare.html",
        heading=f"{len(runs)} runs side by side",
        verdict=comparison.verdict,
        notes=comparison.notes,
        names=[run.name for run in runs],
        shades=shades_of(len(runs)),
        rows=run_rows(comparison),
        links=[f"{run.folder}/report.html" for run in runs],
        bench=comparison.bench,
        metric=comparison.quality.measure,
        fronts=comparison.fronts,
        no_quality=comparison.quality.reason,
        no_speed=comparison.speed.reason,
        stage_rows=_stage_rows(comparison),
        stages=width_stages(comparison.widths),
        group_count=len(comparison.widths),
        has_units=True,
        recipe=recipe_rows(comparison),
        places=place_rows(comparison),
        plots=_plots(comparison),
    )


def width_stages(widths: Sequence[LayerWidths]) -> list[WidthStage]:
    """Groups by the stage of the network that they are in.

    Args:
        widths: Each group's, in order.

    Returns:
        The stages; none without groups.
    """
    stages = folded([width.name for width in widths]) if widths else {}
    return [WidthStage(name, tuple(widths[index] for index in places)) for name, places in stages.items()]


def width_bars(widths: Sequence[LayerWidths], names: Sequence[str]) -> dict[str, Any]:
    """The picture of widths.

    Args:
        widths: Each group's, in order.
        names: Of what keeps them.

    Returns:
        The data of the picture.
    """
    columns: dict[str, Sequence[float | None]] = {"dense": [width.channels for width in widths]}
    columns |= {name: [width.kept[index] for width in widths] for index, name in enumerate(names)}
    return bars([w.name for w in widths], columns, ["dense", *shades_of(len(names))], "channels", "mean")


def shades_of(count: int) -> list[str]:
    """The colours of so many networks, as the style of the page names them.

    Args:
        count: How many there are.

    Returns:
        A name each.
    """
    return [f"run-{index % SHADES}" for index in range(count)]


def folder_beside(folders: Sequence[Path]) -> Path:
    """Where a comparison of runs goes if nothing else is said.

    Args:
        folders: Those of the runs.

    Returns:
        A folder beside the first run, named after the first two.
    """
    names = [folder.resolve().name for folder in folders]
    more = [f"{len(names) - 2}-more"] if len(names) > 2 else []
    return folders[0].parent / "-".join(["compare", *names[:2], *more])


def write_runs(comparison: RunComparison, folder: Path) -> Path:
    """Writes a comparison of runs into a folder, which is made: compare.html and compare_runs.json.

    Args:
        comparison: The runs.
        folder: Where; what an earlier comparison left there is written over.

    Returns:
        The path of the page.

    Raises:
        RecipeError: The folder can't be made, or holds a run or a comparison with torch-pruning.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RecipeError(f"the output folder {folder} can't be made ({error}): give another by --out") from error
    for name in ("report.json", "compare.json", "recipe.yaml", "sweep.json"):
        if (folder / name).exists():
            raise RecipeError(f"{folder} holds something else already ({name}): give another folder by --out")
    page = write_runs_page(comparison, folder)
    atomic_files.write_text(folder / "compare_runs.json", json.dumps(comparison.to_data(), indent=2) + "\n")
    return page


def write_runs_page(comparison: RunComparison, folder: Path) -> Path:
    """Writes the page of a comparison of runs.

    Args:
        comparison: The runs.
        folder: That of the comparison.

    Returns:
        The path of compare.html.
    """
    page = folder / "compare.html"
    atomic_files.write_text(page, render_runs(comparison))
    return page


def _plots(comparison: RunComparison) -> dict[str, Any]:
    runs, quality, speed = comparison.runs, comparison.quality, comparison.speed
    shades, plots = shades_of(len(runs)), dict[str, Any]()
    if quality.best is not None:
        values = [run.final.value for run in runs]
        options: dict[str, Any] = {
            "y": values,
            "y_intervals": [run.final.ci95 for run in runs],
            "title": quality.measure,
        }
        options |= {"names": [run.name for run in runs], "shades": shades}
        macs = [run.macs.slim / 1e6 for run in runs]
        plots["macs"] = point_cloud(
            macs, [None] * len(runs), "million MACs", front=comparison.fronts.macs, fewer_is_better=True, **options
        )
        timed = [run.latency for run in runs if run.latency is not None]
        if speed.best is not None:
            is_ms = speed.measure == "ms"
            times = [latency.slim_ms if is_ms else latency.speedup for latency in timed]
            intervals = [latency.slim_ms_ci95 if is_ms else latency.ci95 for latency in timed]
            unit = "ms of a forward pass" if is_ms else "times as fast as dense"
            plots["speed"] = point_cloud(
                times, intervals, unit, front=comparison.fronts.speed, fewer_is_better=is_ms, **options
            )
        plots["quality"] = quality_bars({run.name: _stages(run) for run in runs}, quality.measure, shades)
    if comparison.widths:
        plots["widths"] = width_bars(comparison.widths, [run.name for run in runs])
    return plots


def _stages(run: ComparedRun) -> list[StageQuality]:
    stages = run.quality
    words = [stage.stage for stage in stages[:-1]] + ["in the end"]
    return [
        StageQuality(word, float("nan") if stage.value is None else stage.value, stage.ci95)
        for word, stage in zip(words, stages, strict=True)
    ]


def _stage_rows(comparison: RunComparison) -> list[TextRow]:
    """The quality of each stage of any run, with its interval."""
    runs = comparison.runs
    tables = [{stage.words: stage for stage in _stages(run)} for run in runs]
    names = quality_bars({run.name: _stages(run) for run in runs}, "", shades_of(len(runs)))["names"]
    return [TextRow(name, [_stage_cell(table.get(name)) for table in tables]) for name in names]


def _stage_cell(stage: StageQuality | None) -> Cell:
    if stage is None:
        return Cell("–")
    return Cell(f"{stage.value:.4f}", f"95 %: {stage.interval_text}" if stage.interval else "")
