"""The command line.

Exit codes: 0 done, 1 some runs of a sweep failed, 2 bad input, 3 failed acceptance gate, 4 bound of quality missed,
130 interrupted.
"""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .command_options import (
    CodeOption,
    DType,
    Form,
    Format,
    FormatOption,
    InputSizeOption,
    KwargsOption,
    ModelArgument,
    OutOption,
    Place,
    RecipeArgument,
    ResumeOption,
    SetOption,
)
from .terminal import folder_of, go_on_by, output, plain_errors, resume_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
TIMEOUT = 900.0
SOME_FAILED = 1  # runs of a sweep
MISSED = 4  # a bound of quality was stated, and the network that came of it does not meet it


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"structprune {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Prune a network's filters, prove the slim network right, and measure it on this CPU."""


def _check_text(recipe: str | Path, overrides: list[str] | None = None) -> None:
    """Raises RecipeError for what is wrong with a recipe's text, before torch is imported for the work."""
    from .recipe import check_text

    check_text(recipe, overrides or ())


@app.command()
def run(recipe: RecipeArgument, out: OutOption = None, set_: SetOption = None, resume: ResumeOption = False) -> None:
    """Run a recipe: train or load, plan, prune, fine-tune, gate, export, time, report."""
    with plain_errors(resume_command("run", recipe, out, set_)):
        _check_text(recipe, set_)
        from .report import also_table, int8_table, report_table
        from .run import run_recipe

        report = run_recipe(recipe, out, overrides=set_ or (), resume=resume)
        folder = folder_of(out, recipe)
        console = output()
        console.print(report_table(report, f"{recipe.stem}: {report.model.name}"))
        for note in report.latency.notes if report.latency else ():
            console.print(f"timing: {note}", highlight=False, markup=False)
        if report.int8:
            console.print(int8_table(report))
        if report.also:
            console.print(also_table(report.also))
            for row in report.also:
                for note in row.notes:
                    console.print(f"{row.engine}: {note}", highlight=False, markup=False)
        console.print(f"{folder}: report.html, slim.onnx, slim.safetensors, plan.json", highlight=False, markup=False)
        if report.search and not all(bound.met for bound in report.search.bounds):
            raise typer.Exit(MISSED)


@app.command()
def plan(recipe: RecipeArgument, out: OutOption = None, set_: SetOption = None, resume: ResumeOption = False) -> None:
    """Stop after plan.json; `run --resume` with the same recipe and folder goes on from there."""
    with plain_errors(resume_command("plan", recipe, out, set_)):
        _check_text(recipe, set_)
        from .run import plan_recipe

        planned = plan_recipe(recipe, out, overrides=set_ or (), resume=resume)
        folder = folder_of(out, recipe)
        macs, params = planned.macs, planned.params
        typer.echo(
            f"{folder / 'plan.json'}: MACs {macs['slim'] / macs['dense']:.4f} and parameters "
            f"{params['slim'] / params['dense']:.4f} of dense"
        )


@app.command()
def inspect(
    model: ModelArgument,
    format_: FormatOption = Format.table,
    input_size: InputSizeOption = None,
    kwargs: KwargsOption = None,
    code: CodeOption = None,
    form: Annotated[Form, typer.Option(help="What the slim network is to be: your own module, or an fx graph.")] = (
        Form.module
    ),
) -> None:
    """Print a model's groups of coupled channels, and its barriers with their reasons."""
    with plain_errors(lambda: "nothing was written"):
        if model.endswith((".yaml", ".yml")):
            _check_text(model)
        from .inspection import inspect_model
        from .report import graph_table
        from .report.summaries import describe_graph

        graph = inspect_model(model, input_size, form.value, kwargs, code)
        if format_ is Format.json:
            typer.echo(json.dumps(describe_graph(graph).to_data(), indent=2))
            return
        console = output()
        title = f"{model}: {len(graph.groups)} groups, {graph.macs():,} MACs, {graph.params():,} parameters"
        for table in graph_table(graph, title):
            console.print(table)


@app.command()
def init(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A timm model's name, net.py:Net, package.module:function, or the folder of a finished run.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FOLDER", help="Class folders, a folder of images, or data.py:function."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file to write; default is the model's name.yaml.")
    ] = None,
    kwargs: KwargsOption = None,
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Weights of the model: .safetensors or .pth.")] = (
        None
    ),
    code: CodeOption = None,
    input_size: InputSizeOption = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="What the model is for: classification, segmentation, regression, embedding, detection or "
            "file.py:Task; by default what its outputs and its data show.",
        ),
    ] = None,
) -> None:
    """Write a short commented recipe for a model, and a folder of images, which runs as it is."""
    with plain_errors(lambda: "nothing was written"):
        from .first_recipe import first_recipe, write_recipe
        from .inspection import parse_size
        from .progress import Reporter

        tell = Reporter().stage
        size = parse_size(input_size) if input_size else None
        options = {"kwargs": kwargs, "weights": weights, "code": code, "input_size": size, "out": out, "task": task}
        recipe = first_recipe(model, data, **options, tell=tell)  # type: ignore[arg-type]
        path = write_recipe(recipe, out)
        for note in recipe.notes:
            tell(note)
        typer.echo(f"{path} is written. Run it: {shlex.join(['structprune', 'run', str(path)])}")


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="criteria, allocations, recoveries, engines, tasks, data-sources, model-sources or training-methods; "
            "by default all.",
        ),
    ] = None,
    format_: FormatOption = Format.table,
) -> None:
    """List what recipes may name: what each is, what it needs and takes."""
    with plain_errors(lambda: "nothing was written"):
        from .catalogue import kinds_of
        from .report import catalogue_table

        kinds = kinds_of(kind)
        if format_ is Format.json:
            data = {name: [entry.to_data() for entry in each.entries()] for name, each in kinds.items()}
            typer.echo(json.dumps(data if kind is None else data[kind], indent=2))
            return
        for name, each in kinds.items():
            output().print(catalogue_table(name, each))


@app.command()
def criteria(format_: FormatOption = Format.table) -> None:
    """List the criteria, what each needs and where it is from: `list criteria`."""
    list_("criteria", format_)


@app.command()
def sensitivity(
    recipe: RecipeArgument,
    set_: SetOption = None,
    format_: FormatOption = Format.table,
) -> None:
    """Prune each group alone by a recipe's criterion and print what the outputs lose."""
    with plain_errors(lambda: "nothing was written"):
        _check_text(recipe, set_)
        from .inspection import scan
        from .report import sensitivity_table

        graph, result = scan(recipe, set_ or ())
        if format_ is Format.json:
            typer.echo(json.dumps(result.losses, indent=2))
            return
        table = sensitivity_table(graph, result, f"{recipe.stem}: loss when a share of one group's units goes")
        table.caption = "mean KL from the dense network in nats, on calibration images that the fit has not seen"
        output().print(table)


@app.command()
def profile(
    model: ModelArgument,
    format_: FormatOption = Format.table,
    input_size: InputSizeOption = None,
    kwargs: KwargsOption = None,
    code: CodeOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="onnxruntime's threads; 1, or the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples in a batch; 1, or the recipe's.")] = None,
    dtype: Annotated[
        DType | None, typer.Option(help="float32, or int8 by onnxruntime's static quantiser; float32, or the recipe's.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long slim networks are timed.")] = 60.0,
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure anew, whatever is kept on disk.")] = False,
) -> None:
    """Print where a model's time goes in onnxruntime, and what narrowing each group would save."""
    with plain_errors(lambda: "nothing was written"):
        if model.endswith((".yaml", ".yml")):
            _check_text(model)
        from .inspection import profile_model
        from .report import cost_tables
        from .report.summaries import describe_cost

        graph, cost = profile_model(
            model,
            input_size,
            {"threads": threads, "batch": batch, "dtype": dtype and dtype.value},
            seconds,
            refresh,
            kwargs,
            code,
        )
        if format_ is Format.json:
            typer.echo(json.dumps(describe_cost(graph, cost).to_data(), indent=2))
            return
        console = output()
        for table in cost_tables(graph, cost, f"{model}: where the time goes"):
            console.print(table)


@app.command()
def bench(
    files: Annotated[
        list[Path], typer.Argument(metavar="A.onnx B.onnx ...", help="ONNX files; the first is compared with.")
    ],
    threads: Annotated[int, typer.Option(min=1, help="Threads inside an op.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a batch, where the file leaves it open.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to time.")] = 10.0,
    engine: Annotated[str, typer.Option(help="What runs the files: onnxruntime or openvino.")] = "onnxruntime",
    device: Annotated[str, typer.Option(help="cpu, or cuda where onnxruntime has it.")] = "cpu",
    pin: Annotated[bool, typer.Option("--pin", help="Stay on the idlest cores, as many as there are threads.")] = False,
    format_: FormatOption = Format.table,
) -> None:
    """Time ONNX files against each other, in turns, with intervals. Any files will do."""
    with plain_errors(lambda: "nothing was written"):
        from .progress import Reporter
        from .report import benchmark_table
        from .runtimes import Runtime, benchmark

        names = [str(path) for path in files]
        if len(set(names)) < len(names):  # an A/A run
            names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
        runtime = Runtime(threads, batch, engine=engine, device=device)  # type: ignore[arg-type]
        with Reporter().bar("timing") as update:
            timed = dict(zip(names, files, strict=True))
            result = benchmark(timed, runtime=runtime, seconds=seconds, pin=pin, energy=True, progress=update)
        if format_ is Format.json:
            typer.echo(json.dumps(result.to_data(), indent=2))
            return
        output().print(benchmark_table(result))


@app.command()
def compare(
    recipe: RecipeArgument,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Output folder; default runs/RECIPE'S NAME-compare.")
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
) -> None:
    """Run a recipe by structprune and by torch-pruning, without rounding and with 8 and 16, and compare all."""
    folder = Path(out) if out else Path("runs") / f"{recipe.stem}-compare"
    flags = [*(["--as-fast"] if as_fast else []), *(["--timeout", f"{timeout:g}"] if timeout != TIMEOUT else [])]
    with plain_errors(resume_command("compare", recipe, out, set_, folder, flags)):
        _check_text(recipe, set_)
        from .compare import Comparison, compare_table, draw
        from .compare import compare as compare_tools

        data = compare_tools(recipe, folder, overrides=set_ or (), timeout=timeout, resume=resume, as_fast=as_fast)
        result = Comparison.model_validate(data)
        draw(result, folder / "compare.png")
        output(140).print(compare_table(result))
        files = "compare.json, compare.png, structprune/report.html"
        output().print(f"{folder}: {files}", highlight=False, markup=False)


@app.command()
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
) -> None:
    """Run a recipe in many variants over seeds, and tabulate them. In the same folder, go on with what is missing."""
    folder = folder_of(out, file)
    options = [*(("--out", out) if out else ()), *(("--jobs", str(jobs)) if jobs else ())]
    options += [] if on is Place.here else ["--on", on.value]
    with plain_errors(go_on_by(["structprune", "sweep", str(file), *options], folder / "sweep.yaml")):
        from .sweep import on_ray, on_this_machine, sweep_table
        from .sweep import sweep as run_sweep

        executor = on_this_machine(jobs or 1) if on is Place.here else on_ray(jobs)
        report = run_sweep(file, folder, executor=executor)
        output(140).print(sweep_table(report))
        output().print(f"{folder}: sweep.md, sweep.csv, sweep.json", highlight=False, markup=False)
        if report.failures:
            raise typer.Exit(SOME_FAILED)


@app.command()
def clean(
    places: Annotated[list[Path] | None, typer.Argument(metavar="FOLDER", help="Where runs are; default runs.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, it is only listed.")] = False,
) -> None:
    """List what runs have made for others to find, and remove it by --yes: all but what interrupted runs go on from."""
    with plain_errors(lambda: "what is removed is made anew where a run needs it"):
        from .run import store_of
        from .store import cleaning

        for root in dict.fromkeys(map(store_of, places or [Path("runs")])):
            entries = cleaning.clean(root, places or [Path("runs")], remove=yes)
            typer.echo("\n".join(cleaning.describe(root, entries, yes)))


def main() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(number: int, frame: object) -> None:
    """Takes SIGTERM, by which schedulers end a job, as Ctrl-C: all is cleared up, and child processes are ended."""
    raise KeyboardInterrupt
