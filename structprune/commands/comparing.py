"""Commands that hold networks and plans side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..command_options import JsonOption, ResumeOption, SetOption
from ..terminal import output, plain_errors, resume_command

if TYPE_CHECKING:
    from ..records import Plan

TIMEOUT = 900.0


def compare(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="RECIPE|RUN", help="A recipe, or the folders of two finished runs or more."),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", help="Output folder; default runs/RECIPE'S NAME-compare, or beside the first run."
        ),
    ] = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds after which a run of torch-pruning is ended.")
    ] = TIMEOUT,
    as_fast: Annotated[
        bool,
        typer.Option("--as-fast", help="Also run the recipe to be as fast as torch-pruning's network rounded to 16."),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Hold finished runs side by side on one page; or run a recipe by structprune and by torch-pruning."""
    flags = [*(["--as-fast"] if as_fast else []), *(["--timeout", f"{timeout:g}"] if timeout != TIMEOUT else [])]
    if len(places) == 1 and not (places[0] / "report.json").is_file():
        _beside_peer(places[0], out, set_, resume, timeout, as_fast, flags, json_)
        return
    with plain_errors(lambda: "nothing was written"):
        from ..errors import RecipeError

        unused = [*flags[:1], *(["--set"] if set_ else []), *(["--resume"] if resume else [])]
        if unused:
            raise RecipeError(f"{unused[0]} is for a recipe, and finished runs are only read: leave it out")
        _runs_beside(places, out, json_)


def _runs_beside(folders: Sequence[Path], out: str | None, json_: bool) -> None:
    from ..compare import compare_runs, folder_beside, runs_table, write_runs

    folder = Path(out) if out else folder_beside(folders)
    comparison = compare_runs(folders, folder)
    page = write_runs(comparison, folder)
    if json_:
        typer.echo(json.dumps(comparison.to_data(), indent=2))
        return
    output(140).print(runs_table(comparison))
    output().print(f"{folder}: {page.name}, compare_runs.json", highlight=False, markup=False)


def _beside_peer(
    recipe: Path,
    out: str | None,
    set_: list[str] | None,
    resume: bool,
    timeout: float,
    as_fast: bool,
    flags: Sequence[str],
    json_: bool,
) -> None:
    folder = Path(out) if out else Path("runs") / f"{recipe.stem}-compare"
    with plain_errors(resume_command("compare", recipe, out, set_, folder, flags)):
        from ..recipe import check_text

        check_text(recipe, set_ or ())
        from ..compare import Comparison, compare_table, draw, write_comparison_page
        from ..compare import compare as compare_tools

        data = compare_tools(recipe, folder, overrides=set_ or (), timeout=timeout, resume=resume, as_fast=as_fast)
        result = Comparison.model_validate(data)
        draw(result, folder / "compare.png")
        write_comparison_page(result, folder)
        if json_:
            typer.echo(json.dumps(result.to_data(), indent=2))
            return
        output(140).print(compare_table(result))
        files = "compare.html, compare.json, compare.png, structprune/report.html"
        output().print(f"{folder}: {files}", highlight=False, markup=False)


def diff(
    first: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json, or the folder of a run.")],
    second: Annotated[Path, typer.Argument(metavar="PLAN", help="Another.")],
    json_: JsonOption = False,
) -> None:
    """Print where two plans differ, width by width."""
    with plain_errors(lambda: "nothing was written"):
        from ..compare import difference_of, difference_table

        difference = difference_of(_plan_at(first), _plan_at(second))
        if json_:
            typer.echo(json.dumps(difference.to_data(), indent=2))
            return
        output(140).print(difference_table(difference, (str(first), str(second))))


def _plan_at(place: Path) -> Plan:
    """The plan in a file, or that of the run in a folder. Raises PlanError."""
    from ..errors import PlanError
    from ..records import Plan

    if not place.exists():
        raise PlanError(f"{place} is not a file or folder: give a plan.json or the folder of a run")
    if not place.is_dir():
        return Plan.read(place)
    if not (place / "plan.json").is_file():
        raise PlanError(f"{place} has no plan.json: no run has planned there")
    return Plan.read(place / "plan.json")
