"""Commands on a model: what can be pruned of it, where its time goes, and a first recipe."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..command_options import (
    CodeOption,
    DType,
    Form,
    InputSizeOption,
    JsonOption,
    KwargsOption,
    ModelArgument,
    RecipeArgument,
    SetOption,
)
from ..terminal import output, plain_errors


def inspect(
    model: ModelArgument,
    json_: JsonOption = False,
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
            from ..recipe import check_text

            check_text(model, ())
        from ..inspection import inspect_model
        from ..report import graph_table
        from ..report.summaries import describe_graph

        graph = inspect_model(model, input_size, form.value, kwargs, code)
        if json_:
            typer.echo(json.dumps(describe_graph(graph).to_data(), indent=2))
            return
        console = output()
        title = f"{model}: {len(graph.groups)} groups, {graph.macs():,} MACs, {graph.params():,} parameters"
        for table in graph_table(graph, title):
            console.print(table)


def models(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="timm's names with * and ?, such as 'resnet*'.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List timm's models whose names match a pattern; without one, where models can come from."""
    with plain_errors(lambda: "nothing was written"):
        if pattern is None:
            from .machine import list_

            list_("model-sources", json_)
            if not json_:
                typer.echo("timm's own names: structprune models 'resnet*'")
            return
        from ..errors import RecipeError
        from ..timm_names import models_like

        names = models_like(pattern)
        if not names:
            raise RecipeError(f"timm has no model whose name is like {pattern!r}: try 'resnet*' or '*vit*'")
        typer.echo(json.dumps(names, indent=2) if json_ else "\n".join(names))


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
        from ..first_recipe import first_recipe, write_recipe
        from ..inspection import parse_size
        from ..progress import Reporter

        tell = Reporter().stage
        size = parse_size(input_size) if input_size else None
        options = {"kwargs": kwargs, "weights": weights, "code": code, "input_size": size, "out": out, "task": task}
        recipe = first_recipe(model, data, **options, tell=tell)  # type: ignore[arg-type]
        path = write_recipe(recipe, out)
        for note in recipe.notes:
            tell(note)
        typer.echo(f"{path} is written. Run it: {shlex.join(['structprune', 'run', str(path)])}")


def sensitivity(
    recipe: RecipeArgument,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Prune each group alone by a recipe's criterion and print what the outputs lose."""
    with plain_errors(lambda: "nothing was written"):
        from ..recipe import check_text

        check_text(recipe, set_ or ())
        from ..inspection import scan
        from ..report import sensitivity_table

        graph, result = scan(recipe, set_ or ())
        if json_:
            typer.echo(json.dumps({"inputs": result.inputs, "losses": result.losses}, indent=2))
            return
        table = sensitivity_table(graph, result, f"{recipe.stem}: loss when a share of one group's units goes")
        what = "calibration images" if result.inputs == "samples" else "random inputs"
        table.caption = f"mean KL from the dense network in nats, on {what} that the fit has not seen"
        output().print(table)


def profile(
    model: ModelArgument,
    json_: JsonOption = False,
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
            from ..recipe import check_text

            check_text(model, ())
        from ..inspection import profile_model
        from ..report import cost_tables
        from ..report.summaries import describe_cost

        graph, cost = profile_model(
            model,
            input_size,
            {"threads": threads, "batch": batch, "dtype": dtype and dtype.value},
            seconds,
            refresh,
            kwargs,
            code,
        )
        if json_:
            typer.echo(json.dumps(describe_cost(graph, cost).to_data(), indent=2))
            return
        console = output()
        for table in cost_tables(graph, cost, f"{model}: where the time goes"):
            console.print(table)
