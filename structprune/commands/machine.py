"""Commands on this machine: what it is and has, what recipes may name here, and timings of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..command_options import JsonOption
from ..terminal import output, plain_errors


def bench(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="A.onnx B.onnx ...", help="ONNX files; the others are compared with the first."),
    ],
    threads: Annotated[int, typer.Option(min=1, help="Threads inside an op.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a batch, where the file leaves it open.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to time.")] = 10.0,
    engine: Annotated[str, typer.Option(help="What runs the files: onnxruntime or openvino.")] = "onnxruntime",
    device: Annotated[str, typer.Option(help="cpu, or cuda where onnxruntime has it.")] = "cpu",
    pin: Annotated[bool, typer.Option("--pin", help="Stay on the idlest cores, as many as there are threads.")] = False,
    json_: JsonOption = False,
) -> None:
    """Time an ONNX file, or several against the first, in turns, with intervals. Any files will do."""
    with plain_errors(lambda: "nothing was written"):
        from ..progress import Reporter
        from ..report import benchmark_table
        from ..runtimes import Runtime, benchmark

        names = [str(path) for path in files]
        if len(set(names)) < len(names):  # an A/A run
            names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
        runtime = Runtime(threads, batch, engine=engine, device=device)  # type: ignore[arg-type]
        with Reporter().bar("timing") as update:
            timed = dict(zip(names, files, strict=True))
            result = benchmark(timed, runtime=runtime, seconds=seconds, pin=pin, energy=True, progress=update)
        if json_:
            typer.echo(json.dumps(result.to_data(), indent=2))
            return
        output().print(benchmark_table(result))


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="criteria, allocations, recoveries, engines, formats, tasks, data-sources, model-sources or "
            "training-methods; by default all.",
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List what recipes may name: what each is, what it needs and takes."""
    with plain_errors(lambda: "nothing was written"):
        from ..catalogue import kinds_of
        from ..report import catalogue_table

        kinds = kinds_of(kind)
        if json_:
            data = {name: [entry.to_data() for entry in each.entries()] for name, each in kinds.items()}
            typer.echo(json.dumps(data if kind is None else data[kind], indent=2))
            return
        for name, each in kinds.items():
            output().print(catalogue_table(name, each))


def criteria(json_: JsonOption = False) -> None:
    """List the criteria, what each needs and where it is from: `list criteria`."""
    list_("criteria", json_)


def allocations(json_: JsonOption = False) -> None:
    """List the ways to share a budget among groups, and what each needs: `list allocations`."""
    list_("allocations", json_)


def recoveries(json_: JsonOption = False) -> None:
    """List what wins back quality without training, and what each takes: `list recoveries`."""
    list_("recoveries", json_)


def methods(json_: JsonOption = False) -> None:
    """List the training methods, and what each takes: `list training-methods`."""
    list_("training-methods", json_)


def doctor(json_: JsonOption = False) -> None:
    """Print what this machine is and has: versions, instructions, threads, engines, GPUs, and how to get the rest."""
    with plain_errors(lambda: "nothing was written"):
        from ..diagnosis import diagnose
        from ..report import diagnosis_table

        diagnosis = diagnose()
        if json_:
            typer.echo(json.dumps(diagnosis.to_data(), indent=2))
            return
        output().print(diagnosis_table(diagnosis))
