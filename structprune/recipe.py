"""Recipes: YAML files checked by pydantic. Everything that can be known to be wrong is said before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from . import strict_yaml
from .bench import Runtime
from .bench.engines import ENGINES
from .calibration.batches import BATCH
from .criteria import COMBINE, CRITERIA
from .data import AnyDataSpec
from .data.digits import DigitsSpec as DigitsSpec
from .data.images import ImagesSpec as ImagesSpec
from .errors import RecipeError
from .memory import LIMIT
from .models import ModelSpec as AnyModelSpec
from .models import TimmSpec as ModelSpec  # noqa: F401 - its old name
from .models import parse_model
from .names import shown, unknown
from .plan import ALLOCATIONS
from .shipped import find_recipe
from .specs import Number, Strict, Whole, mistakes
from .tasks import TASKS
from .tasks.own import AnyTaskSpec
from .train.spec import TrainSpec

QUALITY = ("quality_drop", "agreement")  # the bounds of quality


class BudgetSpec(Strict):
    """What may stay, and how good the network must be.

    Of cost: a fraction of the dense network (up to 1), or an absolute number; how many milliseconds a forward pass may
    take, or how many times faster it is to be, on the `runtime`. Of quality: by how much the task's metric may be
    worse than the dense network's, in the metric's own units, or on what share of samples the slim network must answer
    as the dense one does. Bounds of quality are met by a search, over costs down to those that are given.
    """

    macs: Number | None = Field(default=None, gt=0, allow_inf_nan=False)
    params: Number | None = Field(default=None, gt=0, allow_inf_nan=False)
    channels: Number | None = Field(default=None, gt=0, allow_inf_nan=False)
    latency_ms: Number | None = Field(default=None, gt=0, allow_inf_nan=False)
    speedup: Number | None = Field(default=None, ge=1, allow_inf_nan=False)
    quality_drop: Number | None = Field(default=None, ge=0, allow_inf_nan=False)
    agreement: Number | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _any(self) -> BudgetSpec:
        if not self.model_dump(exclude_none=True):
            raise ValueError("give macs, params, channels, latency_ms, speedup, quality_drop or agreement")
        return self

    @property
    def costs(self) -> dict[str, float]:
        """The bounds of cost that are given, by name."""
        return self.model_dump(exclude_none=True, exclude=set(QUALITY))

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds of quality that are given, by name."""
        return self.model_dump(exclude_none=True, include=set(QUALITY))

    def as_dict(self) -> dict[str, float]:
        """What one plan is held to: the bounds of cost; all of the MACs where only quality is bounded."""
        return self.costs or {"macs": 1.0}


class SearchSpec(Strict):
    """How a bound of quality is met: by at most `trials` networks, each cut, recovered and fine-tuned for `epochs`."""

    trials: Whole = Field(default=7, ge=1)
    epochs: Whole = Field(default=0, ge=0)


class PruneSpec(Strict):
    """How the network is cut. `planning_seconds` bounds how long planning for a latency or a speedup measures."""

    criterion: str = "l1"
    combine: str | None = None
    budget: BudgetSpec
    search: SearchSpec | None = None
    allocation: str = "uniform"
    min_channels: Whole = Field(default=1, ge=1)
    max_ratio: Number = Field(default=0.9, gt=0, le=1)
    align: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    ignore: tuple[str, ...] = ()
    form: Literal["auto", "module", "graph"] = "auto"
    planning_seconds: Number = Field(default=600.0, gt=0, allow_inf_nan=False)

    @field_validator("align", mode="before")
    @classmethod
    def _align(cls, value: Any) -> Any:
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{value!r} is neither auto nor a whole number of at least 1")
        return value

    @model_validator(mode="after")
    def _searched(self) -> PruneSpec:
        if self.search is not None and not self.budget.bounds:
            raise ValueError("search is for a bound of quality: give budget quality_drop or agreement, or leave it out")
        return self

    @field_validator("criterion")
    @classmethod
    def _criterion(cls, name: str) -> str:
        if name not in CRITERIA:
            raise ValueError(unknown("criterion", name, CRITERIA))
        return name

    @field_validator("combine")
    @classmethod
    def _combine(cls, name: str | None) -> str | None:
        if name is not None and name not in COMBINE:
            raise ValueError(unknown("way to combine", name, COMBINE))
        return name

    @field_validator("allocation")
    @classmethod
    def _allocation(cls, name: str) -> str:
        if name not in ALLOCATIONS:
            raise ValueError(unknown("allocation", name, ALLOCATIONS))
        return name


class MeansSpec(Strict):
    """Removed channels leave their mean in the offsets of the layers that consumed them."""

    method: Literal["means"] = "means"
    source: Literal["calibration", "batchnorm"] = "calibration"


class LeastSquaresSpec(Strict):
    """Layers that lost inputs are fitted to the dense network's outputs: all weights, or one factor an input channel.

    `ridge` holds them near what they were, in shares of the mean variance of an input; by default it is chosen for each
    layer by cross-validation.
    """

    method: Literal["least_squares"] = "least_squares"
    weights: Literal["full", "scales"] = "full"
    ridge: Number | None = Field(default=None, gt=0, allow_inf_nan=False)


class BatchNormSpec(Strict):
    """Running means and variances are taken anew on the calibration images."""

    method: Literal["batchnorm"] = "batchnorm"


_RECOVERIES: dict[str, type[BaseModel]] = {
    "means": MeansSpec,
    "least_squares": LeastSquaresSpec,
    "batchnorm": BatchNormSpec,
}
METHODS = tuple(_RECOVERIES)


def _named(step: Any) -> Any:
    """A step that is given by its name alone."""
    name = step.get("method") if isinstance(step, dict) else step
    if isinstance(name, str) and name not in METHODS:
        raise ValueError(unknown("recovery", name, METHODS))
    return {"method": step} if isinstance(step, str) else step


RecoverSpec = Annotated[
    Annotated[MeansSpec | LeastSquaresSpec | BatchNormSpec, Field(discriminator="method")], BeforeValidator(_named)
]


def check_order(steps: Sequence[MeansSpec | LeastSquaresSpec | BatchNormSpec]) -> None:
    """Raises ValueError for steps that come twice, and for means after what has made up for them already."""
    methods: list[str] = [step.method for step in steps]
    for method in METHODS:
        if methods.count(method) > 1:
            raise ValueError(f"{method} is there {methods.count(method)} times: once does it all")
    if "means" in methods:
        before = methods[: methods.index("means")]
        if before:
            raise ValueError(
                f"means come after {before[-1]}, which has made up for the removed channels' means already: put them "
                "first"
            )


class RuntimeSpec(Strict):
    """What budgets of latency, steps and the report's speedup are about: by default onnxruntime on this CPU."""

    engine: str = "onnxruntime"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Whole = Field(default=1, ge=1)
    batch: Whole = Field(default=1, ge=1)
    dtype: Literal["float32", "int8"] = "float32"

    @field_validator("engine")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ENGINES:
            raise ValueError(unknown("engine", name, ENGINES))
        return name

    @model_validator(mode="after")
    def _there(self) -> RuntimeSpec:
        try:
            self.runtime()
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return self

    def runtime(self) -> Runtime:
        return Runtime(**self.model_dump())


class AlsoSpec(RuntimeSpec):
    """Another runtime; `threads` and `batch` are by default those that the network is made for."""

    threads: Whole | None = Field(default=None, ge=1)  # type: ignore[assignment]
    batch: Whole | None = Field(default=None, ge=1)  # type: ignore[assignment]

    def runtime(self) -> Runtime:
        return Runtime(**self.model_dump(exclude_none=True))


class ExportSpec(Strict):
    """`int8` also writes dense and slim as onnxruntime's static quantiser makes them, and times and judges all four."""

    int8: bool = False


def _engine(given: Any) -> Any:
    """A runtime that is given by its engine's name alone."""
    return {"engine": given} if isinstance(given, str) else given


class BenchSpec(Strict):
    """`also` has other runtimes that the finished networks are timed on; `pin` keeps timings on the idlest cores."""

    seconds: Number = Field(default=10.0, gt=0)
    also: tuple[Annotated[AlsoSpec, BeforeValidator(_engine)], ...] = ()
    pin: bool = False


class Recipe(Strict):
    """One run: which model, which data, how it is trained, pruned, fine-tuned and timed.

    `memory` is how many GiB scoring and recovery may take for one layer or group at a time, on top of the networks, the
    images and a forward pass.
    """

    seed: Whole = Field(default=0, ge=0, le=2**31)
    memory: Number = Field(default=LIMIT / 2**30, gt=0, allow_inf_nan=False)
    model: Annotated[SerializeAsAny[AnyModelSpec], BeforeValidator(parse_model)]
    data: AnyDataSpec
    task: AnyTaskSpec = Field(default_factory=lambda: TASKS["classification"].spec(name="classification"))
    train: TrainSpec | None = None
    prune: PruneSpec
    recover: tuple[RecoverSpec, ...] = ()
    finetune: TrainSpec | None = None
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)
    export: ExportSpec = Field(default_factory=ExportSpec)
    bench: BenchSpec = Field(default_factory=BenchSpec)

    @property
    def int8(self) -> bool:
        """Whether int8 networks are made."""
        return self.export.int8 or any(spec.dtype == "int8" for spec in (self.runtime, *self.bench.also))

    @property
    def chooses(self) -> bool:
        """Whether something is chosen by quality, for which data is kept that is neither trained nor measured on."""
        training = (spec for spec in (self.train, self.finetune) if spec is not None)
        return bool(self.prune.budget.bounds) or any(spec.patience is not None for spec in training)

    @property
    def also(self) -> list[Runtime]:
        """The runtimes of `bench.also`."""
        held = {"threads": self.runtime.threads, "batch": self.runtime.batch}
        return [Runtime(**{**held, **spec.model_dump(exclude_none=True)}) for spec in self.bench.also]

    @field_validator("recover")
    @classmethod
    def _order(cls, steps: tuple[MeansSpec | LeastSquaresSpec | BatchNormSpec, ...]) -> Any:
        check_order(steps)
        return steps

    @model_validator(mode="after")
    def _calibrated(self) -> Recipe:
        criterion = CRITERIA[self.prune.criterion]
        if self.data.calibration is None:
            for wanted, what in (
                (criterion.needs_data, f"criterion {criterion.name}"),
                (self.prune.allocation == "sensitivity", "allocation sensitivity"),
                (any(needs_images(step) for step in self.recover), "recovery"),
                (self.int8, "int8"),
            ):
                if wanted:
                    raise ValueError(f"{what} needs calibration images: add data.calibration, e.g. {{images: 256}}")
        elif self.prune.allocation in ("sensitivity", "knapsack") and self.data.calibration.images <= BATCH:
            raise ValueError(
                f"allocation {self.prune.allocation} needs two batches of {BATCH}: set data.calibration.images higher"
            )
        if self.prune.combine and criterion.combine is None:
            raise ValueError(f"prune.combine: {criterion.name} scores coupled layers as a whole: leave combine out")
        return self

    @model_validator(mode="after")
    def _search(self) -> Recipe:
        if self.prune.search and self.prune.search.epochs and self.finetune is None:
            raise ValueError("prune.search.epochs is of fine-tuning, and there is none: add finetune, or leave it out")
        return self

    @model_validator(mode="after")
    def _targets(self) -> Recipe:
        if self.data.gives_classes and self.task.name in TASKS and not TASKS[self.task.name].classes:
            raise ValueError(
                f"task {self.task.name} has no use for class numbers, which is what data.source={self.data.source} has "
                "as labels: give data by file.py:function, or images without labels"
            )
        gradients = TASKS[self.task.name].gradients if self.task.name in TASKS else "always"
        lacks = gradients == "never" or (gradients == "labels" and not self.data.labelled)
        if "gradients" in CRITERIA[self.prune.criterion].needs and lacks:
            why = "has no loss in evaluation mode" if gradients == "never" else "has gradients with labels only"
            raise ValueError(
                f"criterion {self.prune.criterion} needs gradients, and task {self.task.name} {why}: choose one "
                "without (see `structprune criteria`)"
            )
        return self

    @model_validator(mode="after")
    def _labels(self) -> Recipe:
        for name in ("train", "finetune"):
            if getattr(self, name) and not self.data.labelled:
                raise ValueError(
                    f"{name} needs labels, and data.source={self.data.source} has none: use digits, a folder of "
                    "classes (source: folder) or data of your own"
                )
        return self


def needs_images(step: MeansSpec | LeastSquaresSpec | BatchNormSpec) -> bool:
    return not (isinstance(step, MeansSpec) and step.source == "batchnorm")


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies overrides of the form `a.b=value`. Raises RecipeError, in one line.

    Args:
        path: Of a YAML file, or the name of a recipe that comes with the package.
        overrides: Keys and values, as `--set` takes them.
    """
    path = find_recipe(path)
    try:
        found = path.is_file()
    except OSError as error:  # a name that is too long
        raise RecipeError(f"no recipe at {shown(str(path))}: {error.strerror}") from error
    if not found:
        place = path if path.is_dir() else path.parent
        near = [p for p in sorted(place.glob("*.yaml")) if not p.name.startswith(".")] if place.is_dir() else []
        hint = f": did you mean one of {', '.join(str(p) for p in near[:8])}?" if near else ""
        raise RecipeError(f"no recipe at {path}{hint}")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {type(data).__name__}, not a mapping of keys: see recipes/quickstart.yaml")
    for override in overrides:
        _override(data, override)
    return check_recipe(data, str(path), path.parent)


def read_yaml(path: Path) -> Any:
    """The data in a YAML file (see `strict_yaml`). Raises RecipeError, in one line."""
    try:
        return strict_yaml.read(path)
    except OSError as error:
        raise RecipeError(f"{path} can't be read: {error}") from error
    except ValueError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error


def check_recipe(data: dict[str, Any], where: str = "recipe", folder: Path | None = None) -> Recipe:
    """The recipe in `data`. Raises RecipeError, in one line.

    Args:
        data: What stands in its file.
        where: What messages call it.
        folder: Of its file; paths in it that are there are relative to this folder, others to the current one.
    """
    try:
        return Recipe.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        raise RecipeError(_one_line(error, where)) from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip("."):
        raise RecipeError(f"--set {_plain(override)}: give it as key=value, for example prune.budget.macs=0.5")
    *parents, last = key.split(".")
    here = data
    for parent in parents:
        if here.get(parent) is None:
            here[parent] = {}
        here = here[parent]
        if not isinstance(here, dict):
            raise RecipeError(f"--set {_plain(override)}: {_plain(parent)} is a value in this recipe and has no keys")
    try:
        here[last] = strict_yaml.parse(text)
    except ValueError as error:
        raise RecipeError(f"--set {shown(override)}: {shown(text)} is not a YAML value: {error}") from error


def _one_line(error: ValidationError, where: str) -> str:
    errors = list(mistakes(error))
    first, spec = errors[0]
    location = list(first["loc"])
    place = [str(part) for i, part in enumerate(location) if i == 0 or part not in METHODS]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = unknown("key", place[-1], _own_keys(spec) if spec else _keys(place[:-1], first["loc"]))
    elif first["type"] != "value_error" and first["type"] != "missing":
        message = f"{message}, not {shown(first['input'])}"
    others = ["".join(str(part) for part in other["loc"][:1]) for other, _ in errors[1:]]
    rest = f" (and {len(errors) - 1} more: {', '.join(others)})" if others else ""
    message = " ".join(message.split())
    return f"{where}: {_plain('.'.join(place)) + ': ' if place else ''}{message[:600]}{_plain(rest)}"


def _plain(text: str) -> str:
    """Text of a user's in a message: as it is where it is short and on one line."""
    return text if len(text) <= 200 and text.isprintable() else shown(text, 200)


def _own_keys(spec: type[BaseModel]) -> list[str]:
    return [key for key, field in spec.model_fields.items() if not field.exclude]


def _keys(parents: list[str], location: tuple[Any, ...]) -> list[str]:
    """The keys that are known at a place in a recipe."""
    specs: dict[str, type[BaseModel]] = {
        "": Recipe,
        "train": TrainSpec,
        "recover": next((spec for name, spec in _RECOVERIES.items() if name in location), LeastSquaresSpec),
        "finetune": TrainSpec,
        "prune": PruneSpec,
        "prune.budget": BudgetSpec,
        "runtime": RuntimeSpec,
        "export": ExportSpec,
        "bench": BenchSpec,
        "bench.also": AlsoSpec,
    }
    return list(specs[".".join(part for part in parents if not part.isdigit())].model_fields)
