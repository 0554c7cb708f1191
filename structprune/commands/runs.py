"""Commands that run recipes, and those on what runs have left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..command_options import JsonOption, OutOption, Place, RecipeArgument, ResumeOption, SetOption
from ..terminal import folder_of, go_on_by, output, plain_errors, resume_command

if TYPE_CHECKING:
    from ..compare import Comparison, RunComparison
    from ..report import Report

FILES = ("report.html", "slim.onnx", "slim.safetensors", "plan.json")
SOME_FAILED = 1  # runs of a sweep
MISSED = 4  # a bound of quality was stated, and the network that came of it does not meet it


def run(
    recipe: RecipeArgument,
    out: OutOption = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    json_: JsonOption = False,
) -> None:
    """Run a recipe: train or load, plan, prune, fine-tune, gate, export, time, report."""
    with plain_errors(resume_command("run", recipe, out, set_)):
        from ..recipe import check_text

        check_text(recipe, set_ or ())
        from ..run import run_recipe

        report = run_recipe(recipe, out, overrides=set_ or (), resume=resume)
        if json_:
            typer.echo(json.dumps(report.to_data(), indent=2))
        else:
            _print_report(report, folder_of(out, recipe), f"{recipe.stem}: {report.model.name}")
        if report.search and not all(bound.met for bound in report.search.bounds):
            raise typer.Exit(MISSED)


def _print_report(report: Report, folder: Path, title: str) -> None:
    from ..report import also_table, int8_table, report_table

    console = output()
    console.print(report_table(report, title))
    for note in report.latency.notes if report.latency else ():
        console.print(f"timing: {note}", highlight=False, markup=False)
    if report.int8:
        console.print(int8_table(report))
    if report.also:
        console.print(also_table(report.also))
        for row in report.also:
            for note in row.notes:
                console.print(f"{row.engine}: {note}", highlight=False, markup=False)
    others = [file for entry in report.formats for file in entry.files]
    files = [
        name for name in [*FILES, *others] if (folder / name).is_file()
    ]  # of a network that failed its gate some are missing
    console.print(f"{folder}: {', '.join(files)}", highlight=False, markup=False)


def show(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Of a finished run, comparison or sweep, such as runs/quickstart.")
    ],
    html: Annotated[
        bool, typer.Option("--html", help="Write the page of a run or comparison anew, and print its path.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Print the verdict and the table of a finished run, comparison or sweep again."""
    with plain_errors(lambda: "nothing was written"):
        from ..compare import Comparison, RunComparison, compare_table, runs_table
        from ..errors import RecipeError
        from ..json_records import read_record
        from ..report import Report
        from ..sweep import SweepReport, sweep_table

        files: dict[str, type[Report | Comparison | RunComparison | SweepReport]] = {
            "report.json": Report,
            "compare.json": Comparison,
            "compare_runs.json": RunComparison,
            "sweep.json": SweepReport,
        }
        name = next((name for name in files if (folder / name).is_file()), None)
        if name is None:
            reason = f"has none of {', '.join(files)}: nothing has finished there"
            raise RecipeError(f"{folder} {reason if folder.is_dir() else 'is not a folder'}")
        record = read_record(folder / name, files[name])
        if html and isinstance(record, SweepReport):
            raise RecipeError(f"{folder / name} has no page: --html is for runs and comparisons")
        if json_:
            typer.echo(json.dumps(record.to_data(), indent=2))
        elif html and not isinstance(record, SweepReport):
            typer.echo(_page(record, folder))
        elif isinstance(record, Report):
            _print_report(record, folder, f"{folder.resolve().name}: {record.model.name}")
        elif isinstance(record, Comparison):
            output(140).print(compare_table(record))
        elif isinstance(record, RunComparison):
            output(140).print(runs_table(record))
        elif isinstance(record, SweepReport):
            output(140).print(sweep_table(record))


def _page(record: Report | Comparison | RunComparison, folder: Path) -> Path:
    """Writes the page of a run or of a comparison anew, and says where it is."""
    from ..compare import Comparison, RunComparison, write_comparison_page, write_runs_page
    from ..report.page_file import write_page

    if isinstance(record, Comparison):
        return write_comparison_page(record, folder)
    if isinstance(record, RunComparison):
        return write_runs_page(record, folder)
    return write_page(record, folder, folder.resolve().name)


def plan(
    recipe: RecipeArgument,
    out: OutOption = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    json_: JsonOption = False,
) -> None:
    """Stop after plan.json; `run --resume` with the same recipe and folder goes on from there."""
    with plain_errors(resume_command("plan", recipe, out, set_)):
        from ..recipe import check_text

        check_text(recipe, set_ or ())
        from ..run import plan_recipe

        planned = plan_recipe(recipe, out, overrides=set_ or (), resume=resume)
        folder = folder_of(out, recipe)
        if json_:
            typer.echo((folder / "plan.json").read_text(encoding="utf-8"))
            return
        macs, params = planned.macs, planned.params
        typer.echo(
            f"{folder / 'plan.json'}: MACs {macs['slim'] / macs['dense']:.4f} and parameters "
            f"{params['slim'] / params['dense']:.4f} of dense"
        )


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP", help="A YAML file: a recipe, and what is tried with it.")],
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Output folder; default runs/SWEEP'S NAME.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; 1, or with Ray as many as there are CPUs.")
    ] = None,
    on: Annotated[Place, typer.Option("--on", help="Where runs are made: on this machine, or on a Ray cluster.")] = (
        Place.here
    ),
    json_: JsonOption = False,
) -> None:
    """Run a recipe in many variants over seeds, and tabulate them. In the same folder, go on with what is missing."""
    folder = folder_of(out, file)
    options = [*(("--out", out) if out else ()), *(("--jobs", str(jobs)) if jobs else ())]
    options += [] if on is Place.here else ["--on", on.value]
    with plain_errors(go_on_by(["structprune", "sweep", str(file), *options], folder / "sweep.yaml")):
        from ..sweep import on_ray, on_this_machine, sweep_table
        from ..sweep import sweep as run_sweep

        executor = on_this_machine(jobs or 1) if on is Place.here else on_ray(jobs)
        report = run_sweep(file, folder, executor=executor)
        if json_:
            typer.echo(json.dumps(report.to_data(), indent=2))
        else:
            output(140).print(sweep_table(report))
            output().print(f"{folder}: sweep.md, sweep.csv, sweep.json", highlight=False, markup=False)
        if report.failures:
            raise typer.Exit(SOME_FAILED)


def clean(
    places: Annotated[list[Path] | None, typer.Argument(metavar="FOLDER", help="Where runs are; default runs.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, it is only listed.")] = False,
) -> None:
    """List what runs have made for others to find, and remove it by --yes: all but what interrupted runs go on from."""
    with plain_errors(lambda: "what is removed is made anew where a run needs it"):
        from ..run import store_of
        from ..store import cleaning

        for root in dict.fromkeys(map(store_of, places or [Path("runs")])):
            entries = cleaning.clean(root, places or [Path("runs")], remove=yes)
            typer.echo("\n".join(cleaning.describe(root, entries, yes)))
