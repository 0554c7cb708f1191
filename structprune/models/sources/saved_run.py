"""`run: runs/NAME`: the slim network of a finished run, or of `structprune.save`, to go on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationInfo, field_validator

from ... import user_code
from ...errors import RecipeError, StoreError
from ...messages import shown
from ...strict_specs import beside_recipe
from ...strict_yaml import read as read_yaml
from ...timm_names import architectures
from ..registry import ModelSpec, Tell, model_source

if TYPE_CHECKING:
    from torch import nn

_IMAGES = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


class RunSpec(ModelSpec):
    """A slim network from its folder. `code` names the file or module that defines its classes, where they are neither
    torch's nor timm's.

    Nothing that came with the folder is run: `code` is the recipe's own word.
    """

    name: str = Field(default="", exclude=True)  # set from the folder
    run: str = Field(description="the folder of a finished run, or of `structprune.save`")
    code: str | None = Field(default=None, description="the file or module of its classes, where they are yours")

    @field_validator("run", "code")
    @classmethod
    def _beside(cls, path: str | None, info: ValidationInfo) -> str | None:
        is_module = info.field_name == "code" and path is not None and not user_code.is_file_name(path)
        return path if path is None or is_module else beside_recipe(path, info)

    @field_validator("run")
    @classmethod
    def _there(cls, run: str) -> str:
        if not Path(run).is_dir():
            raise ValueError(f"there is no folder {run}: give that of a finished run, or of structprune.save")
        if not is_saved(run):
            state = "an unfinished run" if (Path(run) / "recipe.yaml").is_file() else "no slim.safetensors"
            raise ValueError(f"{run} holds {state}: give the folder of a finished run, or of structprune.save")
        return run

    def model_post_init(self, _: Any) -> None:
        object.__setattr__(self, "name", self.run)

    @property
    def trained(self) -> bool:
        return True

    def files(self) -> list[Path]:
        code = [] if self.code is None else user_code.files_of(f"{self.code}:any")
        return [Path(self.run) / "plan.json", Path(self.run) / "slim.safetensors", *code]


def is_saved(folder: str) -> bool:
    """Whether a folder holds a slim network."""
    try:
        return all((Path(folder) / name).is_file() for name in ("plan.json", "slim.safetensors"))
    except (OSError, ValueError):
        return False


def _reads(text: str) -> dict[str, Any] | None:
    try:
        folder = bool(text) and Path(text).is_dir()
    except (OSError, ValueError):
        folder = False
    return {"run": text} if folder else None


@model_source("run", "the folder of a finished run", RunSpec, _reads)
def build(spec: RunSpec, tell: Tell) -> nn.Module:
    """Loads the slim network. Raises RecipeError, in one line."""
    from ...store import load
    from ..inputs import remember_config

    if spec.code is not None:
        user_code.load(spec.code, tell)
    try:
        model = load(spec.run)
    except StoreError as error:
        text, missing, _ = str(error).partition(" is not defined here")
        if missing and spec.code is None:
            text += " is of other code: name its file or module by model.code (or --code)" + _named(spec.run)
        raise RecipeError(f"{spec.run}: {text}") from error
    if not getattr(model, "pretrained_cfg", None):  # a graph, or no model of timm's
        remember_config(model, _config(Path(spec.run), 0))
    return model


def _named(run: str) -> str:
    """Advice with the file or module that the run's recipe names. That is not run: only the user can allow it."""
    try:
        model = read_yaml(Path(run) / "recipe.yaml")["model"]
        place = model.get("code") or str(model["source"]).rpartition(":")[0]
        return f"; its recipe names {shown(place)}" if place else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ", such as net.py"


def _config(folder: Path, depth: int) -> dict[str, Any]:
    """The parts of timm's data configuration that a run's folder tells: size, mean, std and the like."""
    import timm
    from torch import Tensor

    from ..inputs import inputs_of_onnx

    config: dict[str, Any] = {}
    try:
        recipe = read_yaml(folder / "recipe.yaml")
        model, data = dict(recipe["model"]), dict(recipe["data"])
    except (OSError, ValueError, KeyError, TypeError):  # no recipe, or one of another kind
        model, data = {}, {}
    name = str(model.get("name", ""))
    if model.get("run") and depth < 20:
        config = _config(Path(str(model["run"])), depth + 1)
    elif name.partition(".")[0] in architectures() and (held := timm.get_pretrained_cfg(name)) is not None:
        config = {key: value for key in _IMAGES if (value := getattr(held, key))}
    config |= {key: data[key] for key in _IMAGES if data.get(key)}
    inputs = inputs_of_onnx(folder / "slim.onnx") if (folder / "slim.onnx").is_file() else None
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        config["input_size"] = tuple(inputs.shape[1:])
    return config
