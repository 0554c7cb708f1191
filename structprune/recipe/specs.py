"""The parts of a recipe, and how they have to fit together.

Nothing here imports torch. What takes more than the recipe's text is checked only if it is not `only_read`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from ..data.spec import AnyDataSpec
from ..errors import RecipeError
from ..memory_limits import LIMIT
from ..models.registry import ModelSpec, parse_model
from ..strict_specs import Flaws, Number, Strict, Whole, only_read
from ..tasks.spec import AnyTaskSpec, ClassificationSpec
from ..train.spec import TrainSpec
from ..typing import Budget
from ..user_code import once
from ..user_code_calls import checked_name
from . import known_names
from .recovery import AnyRecoverySpec, RecoverySpec, check_order

if TYPE_CHECKING:
    from ..criteria import Criterion
    from ..plan import Allocation
    from ..runtimes import Runtime

QUALITY = ("quality_drop", "agreement")  # the bounds of quality


class BudgetSpec(Strict):
    """What may stay, and how good the network must be.

    Of cost: a fraction of the dense network (up to 1), or an absolute number; how many milliseconds a forward pass may
    take, or how many times faster it is to be, on the `runtime`. Of quality: by how much the task's metric may be
    worse than the dense network's, in the metric's own units, or on what share of samples the slim network must answer
    as the dense one does. Bounds of quality are met by a search, over costs down to those that are given.
    """

    macs: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="multiply-adds that may stay: a fraction of dense up to 1, over 1 a number",
    )
    params: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="parameters that may stay: a fraction of dense up to 1, over 1 a number",
    )
    channels: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="channels that may stay: a fraction of dense up to 1, over 1 a number",
    )
    latency_ms: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="milliseconds that a forward pass may take on the `runtime`",
    )
    speedup: Number | None = Field(
        default=None,
        ge=1,
        allow_inf_nan=False,
        description="how many times faster than the dense network on the `runtime`",
    )
    quality_drop: Number | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="by how much the task's metric may be worse than the dense network's, in the metric's units",
    )
    agreement: Number | None = Field(
        default=None, gt=0, le=1, description="on what share of samples the network must answer as the dense one does"
    )

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

    def as_dict(self) -> Budget:
        """Gives the budget of one plan.

        Returns:
            The bounds of cost, or all of the MACs if only quality is bounded.
        """
        return cast(Budget, self.costs) or {"macs": 1.0}


class SearchSpec(Strict):
    """How a bound of quality is met: by at most `trials` networks, each cut, recovered and fine-tuned for `epochs`."""

    trials: Whole = Field(default=7, ge=1, description="how many networks are tried at most")
    epochs: Whole = Field(default=0, ge=0, description="how long each is fine-tuned")


class PruneSpec(Strict):
    """How the network is cut. `planning_seconds` bounds how long planning for a latency or a speedup measures."""

    criterion: str = Field(
        default="l1", description="how units are ranked: a name of `structprune list criteria`, or `file.py:Name`"
    )
    combine: str | None = Field(
        default=None, description="how scores by coupled layers are put together; by default the criterion's own way"
    )
    budget: BudgetSpec = Field(description="what may stay, how fast and how good")
    search: SearchSpec | None = Field(default=None, description="how a bound of quality is searched for")
    allocation: str = Field(
        default="uniform", description="how the budget is shared among groups: a name, or `file.py:Name`"
    )
    min_channels: Whole = Field(default=1, ge=1, description="how many channels each layer keeps at least")
    max_ratio: Number = Field(default=0.9, gt=0, le=1, description="the largest share of a group's units that may go")
    align: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="what widths are multiples of; `auto`: the channel counts that the runtime is fast with",
    )
    ignore: tuple[str, ...] = Field(default=(), description="module paths, with `*` and `?`, whose channels stay")
    form: Literal["auto", "module", "graph"] = Field(
        default="auto",
        description="what the slim network is: your module, an `fx.GraphModule`, or what the budget needs",
    )
    planning_seconds: Number = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="how long planning for a latency or a speedup may measure"
    )

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
    def _criterion(cls, name: str, info: ValidationInfo) -> str:
        return checked_name(name, info) if ":" in name else known_names.CRITERIA.check(name, info)

    @field_validator("combine")
    @classmethod
    def _combine(cls, name: str | None, info: ValidationInfo) -> str | None:
        return None if name is None else known_names.COMBINE.check(name, info)

    @field_validator("allocation")
    @classmethod
    def _allocation(cls, name: str, info: ValidationInfo) -> str:
        return checked_name(name, info) if ":" in name else known_names.ALLOCATIONS.check(name, info)


class RuntimeSpec(Strict):
    """Where the network is to run: what speeds, and multiples of widths, are of. By default onnxruntime on this CPU."""

    engine: str = Field(default="onnxruntime", description="what runs the network")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where it runs")
    threads: Whole = Field(default=1, ge=1, description="threads inside an op")
    batch: Whole = Field(default=1, ge=1, description="samples in a batch")
    dtype: Literal["float32", "int8"] = Field(default="float32", description="the numbers that it computes in")

    @field_validator("engine")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        return known_names.ENGINES.check(name, info)

    @model_validator(mode="after")
    def _there(self, info: ValidationInfo) -> RuntimeSpec:
        try:
            if not only_read(info):
                self.runtime()
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return self

    def runtime(self) -> Runtime:
        """Gives what the networks are planned for and timed on.

        Returns:
            The runtime.
        """
        from ..runtimes import Runtime

        return Runtime(**self.model_dump())


class AlsoSpec(RuntimeSpec):
    """Another runtime; `threads` and `batch` are by default those that the network is made for."""

    threads: Whole | None = Field(  # type: ignore[assignment]
        default=None, ge=1, description="threads inside an op; by default those of `runtime`"
    )
    batch: Whole | None = Field(  # type: ignore[assignment]
        default=None, ge=1, description="samples in a batch; by default those of `runtime`"
    )

    def runtime(self) -> Runtime:
        """Gives what the networks are timed on as well.

        Returns:
            The runtime.
        """
        from ..runtimes import Runtime

        return Runtime(**self.model_dump(exclude_none=True))


class ExportSpec(Strict):
    """`int8` also writes dense and slim as onnxruntime's static quantiser makes them, and times and judges all four."""

    int8: bool = Field(
        default=False,
        description="also write, judge and time dense and slim in int8, by onnxruntime's static quantiser",
    )


def _engine(value: Any) -> Any:
    """Turns the name of an engine into a runtime's mapping."""
    return {"engine": value} if isinstance(value, str) else value


class BenchSpec(Strict):
    """`also` has other runtimes that the finished networks are timed on; `pin` keeps timings on the idlest cores."""

    seconds: Number = Field(default=10.0, gt=0, description="how long the networks are timed")
    also: tuple[Annotated[AlsoSpec, BeforeValidator(_engine)], ...] = Field(
        default=(), description="other runtimes to time on: names of engines, or mappings"
    )
    pin: bool = Field(default=False, description="stay on the idlest cores")


class Recipe(Strict):
    """One run: which model, which data, how it is trained, pruned, fine-tuned and timed.

    `memory` is how many GiB scoring and recovery may take for one layer or group at a time, on top of the networks, the
    images and a forward pass. What would take more is done in parts, on fewer rows or in another way, and notes say so.
    """

    seed: Whole = Field(default=0, ge=0, le=2**31, description="decides weights, crops and the order of training")
    memory: Number = Field(
        default=LIMIT / 2**30,
        gt=0,
        allow_inf_nan=False,
        description="GiB that scoring and recovery may take for one layer or group at a time",
    )
    model: Annotated[SerializeAsAny[ModelSpec], BeforeValidator(parse_model)] = Field(
        description="the network: by `name`, `source` or `run`"
    )
    data: AnyDataSpec = Field(description="the images or other samples, by their `source`")
    task: AnyTaskSpec = Field(
        default_factory=lambda: ClassificationSpec(name="classification"),
        description="what the network is for: a name, or a mapping with `name`",
    )
    train: TrainSpec | None = Field(
        default=None,
        description="training before the cut, on labels, from the weights that the model comes with, if any",
    )
    prune: PruneSpec = Field(description="how the network is cut")
    recover: tuple[AnyRecoverySpec, ...] = Field(
        default=(),
        description="what wins quality back without labels, in this order, before any fine-tuning: names or mappings",
    )
    finetune: TrainSpec | None = Field(default=None, description="training after the cut, on labels")
    runtime: RuntimeSpec = Field(  # which looks for no engine
        default_factory=RuntimeSpec.model_construct, description="what the network is made for, and timed on"
    )
    export: ExportSpec = Field(default_factory=ExportSpec, description="what else is written")
    bench: BenchSpec = Field(default_factory=BenchSpec, description="the timing at the end")

    @property
    def int8(self) -> bool:
        """Whether int8 networks are made."""
        return self.export.int8 or any(spec.dtype == "int8" for spec in (self.runtime, *self.bench.also))

    @property
    def chooses(self) -> bool:
        """Whether something is chosen by quality, for which data is kept that is neither trained nor measured on."""
        training = (spec for spec in (self.train, self.finetune) if spec is not None)
        return bool(self.prune.budget.bounds) or any(spec.chooses for spec in training)

    @property
    def also(self) -> list[Runtime]:
        """The runtimes of `bench.also`."""
        from ..runtimes import Runtime

        defaults = {"threads": self.runtime.threads, "batch": self.runtime.batch}
        return [Runtime(**{**defaults, **spec.model_dump(exclude_none=True)}) for spec in self.bench.also]

    @field_validator("recover")
    @classmethod
    def _order(cls, steps: tuple[RecoverySpec, ...]) -> tuple[RecoverySpec, ...]:
        check_order(steps)
        return steps

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Recipe:
        if only_read(info):
            return self
        from ..criteria import criterion_of
        from ..plan import allocation_of

        tell = once((info.context or {}).get("tell") or (lambda line: None))
        criterion, allocation = criterion_of(self.prune.criterion, tell), allocation_of(self.prune.allocation, tell)
        lacking, targets = _calibration_flaws(self, criterion, allocation), _target_flaws(self, criterion)
        if flaws := [*lacking, *_search_flaws(self), *targets, *_label_flaws(self)]:
            raise Flaws(flaws)
        return self


def _calibration_flaws(recipe: Recipe, criterion: Criterion, allocation: Allocation) -> Iterator[str]:
    """Parts that lack calibration images, and a way to combine that the criterion does not use."""
    from ..calibration.batches import BATCH

    if recipe.data.calibration is None:
        for is_needed, what in (
            (criterion.needs_data, f"criterion {criterion.name}"),
            ("scan" in allocation.needs, f"allocation {allocation.name}"),
            (any(step.needs_images for step in recipe.recover), "recovery"),
            (recipe.int8, "int8"),
        ):
            if is_needed:
                yield f"{what} needs calibration images: add data.calibration, e.g. {{images: 256}}"
    elif allocation.scans(has_images=True) and recipe.data.calibration.images <= BATCH:
        yield f"allocation {allocation.name} needs two batches of {BATCH}: set data.calibration.images higher"
    if recipe.prune.combine and criterion.combine is None:
        yield f"prune.combine: {criterion.name} scores coupled layers as a whole: leave combine out"


def _search_flaws(recipe: Recipe) -> Iterator[str]:
    if recipe.prune.search and recipe.prune.search.epochs and recipe.finetune is None:
        yield "prune.search.epochs is of fine-tuning, and there is none: add finetune, or leave it out"


def _target_flaws(recipe: Recipe, criterion: Criterion) -> Iterator[str]:
    """A task that can't use the data's labels, and a criterion that gets no gradients from it."""
    from ..tasks import TASKS

    kind = TASKS.get(recipe.task.name)  # None for a task of the user's own
    if recipe.data.gives_classes and kind is not None and not kind.classes:
        yield (
            f"task {recipe.task.name} has no use for class numbers, which is what data.source={recipe.data.source} has "
            "as labels: give data by file.py:function, or images without labels"
        )
    gradients = kind.gradients if kind is not None else "always"
    lacks = gradients == "never" or (gradients == "labels" and not recipe.data.labelled)
    if "gradients" in criterion.needs and lacks:
        why = "has no loss in evaluation mode" if gradients == "never" else "has gradients with labels only"
        yield (
            f"criterion {criterion.name} needs gradients, and task {recipe.task.name} {why}: choose one "
            "without (see `structprune criteria`)"
        )


def _label_flaws(recipe: Recipe) -> Iterator[str]:
    training = [name for name in ("train", "finetune") if (spec := getattr(recipe, name)) and spec.needs_labels]
    if training and not recipe.data.labelled:
        more = "; finetune needs them too" if len(training) > 1 else ""
        yield (
            f"{training[0]} needs labels, and data.source={recipe.data.source} has none{more}: use digits, a folder of "
            "classes (source: folder), data of your own, or finetune by methods: [distill], which needs none"
        )
    if recipe.train is not None:
        for spec in recipe.train.methods:
            if spec.needs_dense:
                yield (
                    f"train.methods: {spec.method} learns from the dense network, which is trained here: use it in "
                    "finetune"
                )
