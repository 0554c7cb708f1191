"""The arguments and options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", help="A YAML file, or a recipe that comes with the package, by its name: quickstart."
    ),
]
OutOption = Annotated[
    str | None, typer.Option("--out", metavar="DIR", help="Output folder; default runs/RECIPE'S NAME.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override a key of the recipe; can be given again."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the output folder.")]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A timm model's name, net.py:Net, package.module:function, the folder of a finished run, or a recipe.",
    ),
]
InputSizeOption = Annotated[
    str | None,
    typer.Option(metavar="C,H,W", help="Input of one sample, or one number of tokens; default is the model's own."),
]
KwargsOption = Annotated[
    str | None, typer.Option("--kwargs", metavar="JSON", help="""Arguments for the model: '{"num_classes": 10}'.""")
]
CodeOption = Annotated[
    str | None,
    typer.Option("--code", metavar="FILE.py", help="The file that defines the classes of a run's network, if yours."),
]


class DType(str, Enum):
    float32 = "float32"
    int8 = "int8"


class Form(str, Enum):
    module = "module"
    graph = "graph"


class Place(str, Enum):
    here = "here"
    ray = "ray"
