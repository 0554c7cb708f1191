"""The parts of a recipe, and how they have to fit together.

Nothing here imports torch. What takes more than the recipe's text is checked only if it is not `only_read`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from ..data.spec import AnyDataSpec
from ..errors import RecipeError
from ..extras import lacking
from ..memory_limits import LIMIT
from ..models.registry import ModelSpec, parse_model
from ..schedules.finetuning import FinetuneSpec
from ..schedules.rounds import schedule_flaws
from ..strict_specs import Flaws, Number, Strict, Whole, only_read
from ..tasks.spec import AnyTaskSpec, ClassificationSpec
from ..train.spec import TrainSpec
from ..user_code import once
from . import known_names
from .pruning import AUTO, PruneSpec
from .recovery import AnyRecoverySpec, RecoverySpec, check_order

if TYPE_CHECKING:
    from ..criteria import Criterion
    from ..plan import Allocation
    from ..runtimes import Runtime


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
    """ONNX is always written; `formats` is what the slim network is also written as (`structprune list formats`).

    `int8` also writes dense and slim as onnxruntime's static quantiser makes them, and times and judges all four.
    """

    formats: tuple[str, ...] = Field(
        default=(), description="what the slim network is also written as, by names that `structprune list formats` has"
    )
    opset: Whole = Field(
        default=17,
        ge=14,
        le=23,
        description="the version of ONNX's operators; where only torch's newer exporter can write, 18 at least",
    )
    int8: bool = Field(
        default=False,
        description="also write, judge and time dense and slim in int8, by onnxruntime's static quantiser",
    )

    @field_validator("formats")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = [known_names.FORMATS.check(name, info) for name in dict.fromkeys(names) if name != "onnx"]
        if not only_read(info):
            formats: Any = known_names.FORMATS.registered()
            if missing := [line for name in known if (line := formats[name].missing())]:
                raise ValueError(missing[0])
        return tuple(known)


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
    finetune: FinetuneSpec | None = Field(
        default=None, description="training after the cut, on labels or towards the dense network"
    )
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
    def validates(self) -> bool:
        """Whether quality is measured on the way, for which data is kept that is neither trained on nor measured on in
        the end."""
        training = (spec for spec in (self.train, self.finetune) if spec is not None)
        return bool(self.prune.budget.bounds) or any(spec.validates for spec in training)

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
        if self.prune.allocation == AUTO:
            return self._with_allocation()._checked(info)
        return self._checked(info)

    def _with_allocation(self) -> Recipe:
        """The recipe with the allocation that one gets which names none."""
        planned = self.train is not None and self.train.plans  # for widths that need neither scan nor costs
        name = "uniform" if planned else "knapsack"
        return self.model_copy(update={"prune": self.prune.model_copy(update={"allocation": name})})

    def _checked(self, info: ValidationInfo) -> Recipe:
        if only_read(info):
            return self
        from ..criteria import criterion_of
        from ..plan import allocation_of

        tell = once((info.context or {}).get("tell") or (lambda line: None))
        criterion, allocation = criterion_of(self.prune.criterion, tell), allocation_of(self.prune.allocation, tell)
        calibration, targets = _calibration_flaws(self, criterion), _target_flaws(self, criterion)
        training = [*_unused_flaws(self, criterion, allocation), *_start_flaws(self), *schedule_flaws(self, allocation)]
        if flaws := [*_package_flaws(self), *calibration, *training, *targets, *_label_flaws(self)]:
            raise Flaws(flaws)
        if self.train is None:
            return self
        try:
            return self.model_copy(update={"train": self.train.before_cut(self.prune)})
        except ValueError as error:
            raise ValueError(f"train.methods: {error}") from error

    @property
    def cautions(self) -> list[str]:
        """What the user should know of parts that fit together less well than they might."""
        methods = self.train.methods if self.train is not None else ()
        lines = [f"train.methods: {line}" for spec in methods for line in spec.cautions(self.prune)]
        if self.prune.surgery == "merge" and (names := [spec.method for spec in methods if spec.plans]):
            lines.append(
                f"train.methods: {', '.join(names)} takes filters to zero that are to go, and prune.surgery=merge "
                "takes the mean of these and others: choose drop"
            )
        if self.prune.rotate and (names := [spec.method for spec in methods if spec.plans]):
            lines.append(
                f"train.methods: {', '.join(names)} takes filters to zero that are to go, and prune.rotate makes "
                "mixtures of these and others: leave rotate out"
            )
        return lines


def _package_flaws(recipe: Recipe) -> Iterator[str]:
    """Data that is made of files of packages that are not installed."""
    modules = recipe.data.samples
    if modules and (line := lacking(f"data.source={recipe.data.source}", "samples", *modules)):
        yield line


def _calibration_flaws(recipe: Recipe, criterion: Criterion) -> Iterator[str]:
    """Parts that lack calibration images."""
    if recipe.data.calibration is None:
        for is_needed, what in (
            (criterion.needs_data, f"criterion {criterion.name}"),
            (any(step.needs_images for step in recipe.recover), "recovery"),
            (recipe.int8, "int8"),
            (recipe.prune.rotate, "prune.rotate"),
        ):
            if is_needed:
                yield f"{what} needs calibration images: add data.calibration, e.g. {{images: 256}}"


def _unused_flaws(recipe: Recipe, criterion: Criterion, allocation: Allocation) -> Iterator[str]:
    """Keys that nothing would use."""
    from ..plan import ALLOCATIONS

    if recipe.prune.rotate and recipe.prune.surgery == "merge":
        yield "prune.rotate orders channels by how they are missed, surgery=merge makes clusters of them: choose one"
    if recipe.prune.combine and criterion.combine is None:
        yield f"prune.combine: {criterion.name} scores coupled layers as a whole: leave combine out"
    if recipe.prune.scan and not allocation.scans:
        scanning = " or ".join(entry.name for entry in ALLOCATIONS.values() if entry.scans)
        yield f"prune.scan: allocation {allocation.name} does not scan: leave scan out, or choose {scanning}"
    if recipe.prune.search and recipe.prune.search.epochs and recipe.finetune is None:
        yield "prune.search.epochs is of fine-tuning, and there is none: add finetune, or leave it out"


def _start_flaws(recipe: Recipe) -> Iterator[str]:
    """Parts that do not go with a training from other weights than those that were cut."""
    spec = recipe.finetune
    if spec is None or not spec.restarts:
        return
    if recipe.recover:
        yield f"recover mends the weights that were cut, which finetune.start={spec.start} gives up: leave one out"
    if recipe.prune.rotate:
        yield f"prune.rotate turns the weights, which finetune.start={spec.start} gives up: leave one out"
    if recipe.prune.budget.bounds and not (recipe.prune.search and recipe.prune.search.epochs):
        yield (
            f"a bound of quality is searched for by the networks as cut, and finetune.start={spec.start} gives their "
            "weights up: train each by prune.search.epochs"
        )
    if spec.rewind_to is not None and recipe.train is None:
        yield "finetune.start=rewind goes back to an epoch of train, and there is none: add train, or start=slim"
    elif spec.rewind_to is not None and recipe.train is not None and spec.rewind_to >= recipe.train.epochs:
        yield f"finetune.rewind_to={spec.rewind_to} is not before the end of train, after {recipe.train.epochs} epochs"


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
    for spec in recipe.finetune.methods if recipe.finetune is not None else ():
        if spec.plans:
            yield f"finetune.methods: {spec.method} plans the cut that follows, and none does: use it in train"
