"""A user's own function that returns PyTorch datasets: `source: file.py:function`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from .. import user_code
from ..calibration.batches import BATCH, Batch
from ..calibration.rebatching import rebatched
from ..errors import RecipeError
from ..messages import unknown
from ..ops import Inputs
from ..user_code_calls import made_by
from .loading import is_dataset, loader_of
from .record import Data, Request
from .spec import OwnDataSpec
from .splitting import VALIDATION, calibrated, split_off, subset

EXAMPLES = 4
PARTS = ("train", "validation", "test", "calibration")


def load_own_data(spec: OwnDataSpec, request: Request) -> Data:
    """Loads the data that a user's function returns.

    Raises:
        RecipeError: the function raises, or what it returns is not data.
    """
    returned = made_by(spec.source, "data.source", spec.kwargs, request.tell)
    if isinstance(returned, Mapping) and (strange := [name for name in returned if name not in PARTS]):
        raise RecipeError(f"data.source: {spec.source} returns {unknown('part', strange[0], PARTS)}")
    parts = {name: _part(returned, name) for name in PARTS}
    if parts["test"] is None:
        raise RecipeError(
            f"data.source: {spec.source} returns a {type(returned).__name__} without test: return a dict of train and "
            "test, each a torch Dataset"
        )
    _check(parts, spec)
    train, validation, notes = parts["train"], parts["validation"], []
    _check_apart(parts)
    if request.choosing and validation is None:
        if train is None:
            raise RecipeError(
                f"data.source: {spec.source} returns no train and no validation, and something is to choose"
            )
        stays, off = split_off(len(train), VALIDATION, request.seed + 1)
        train, validation = subset(train, stays), subset(train, off)
        notes.append(f"validation: {len(off)} of {len(stays) + len(off)} samples of train are kept for choices")
    own = parts["calibration"] is not None and parts["calibration"] is not parts["train"]
    source = parts["calibration"] if own else train
    if source is None:
        raise RecipeError(
            f"data.source: {spec.source} returns neither train nor calibration, and test is only for measuring: add one"
        )
    return Data(
        example=_example(source, request),
        test=parts["test"],
        train=train,
        validation=validation,
        calibration=_calibration(spec, source, request),
        labelled=spec.labels,
        workers=spec.workers,
        notes=notes,
        identity=_identity(spec),
    )


def _part(returned: Any, name: str) -> Any:
    return returned.get(name) if isinstance(returned, Mapping) else getattr(returned, name, None)


def _check_apart(parts: dict[str, Any]) -> None:
    """Raises RecipeError if samples of test, or of validation, are seen to be in another part too."""
    for kept, others in (("test", ("train", "validation", "calibration")), ("validation", ("train",))):
        for name in others:
            if parts[kept] is None or parts[name] is None:
                continue
            if parts[name] is parts[kept]:
                raise RecipeError(f"data.source: {name} and {kept} are the same: what is held out must be other data")
            if not (is_dataset(parts[name]) and is_dataset(parts[kept])):
                continue
            (base, first), (other, second) = _drawn(parts[kept]), _drawn(parts[name])
            if base is other and (both := first & second):
                raise RecipeError(
                    f"data.source: {len(both)} samples of {kept} are in {name} too, such as number {min(both)}: "
                    "what is held out must be other data"
                )


def _drawn(part: Any) -> tuple[Any, set[int]]:
    """The dataset that a part is taken from, and the numbers of its samples there."""
    numbers = range(len(part))
    while isinstance(part, Subset):
        numbers, part = [int(part.indices[i]) for i in numbers], part.dataset  # type: ignore[assignment]
    return part, set(numbers)


def _check(parts: dict[str, Any], spec: OwnDataSpec) -> None:
    """Raises RecipeError for a part that is not data, and for one without samples."""
    for name, part in parts.items():
        if part is None:
            continue
        stream = isinstance(part, IterableDataset) or not is_dataset(part)
        if stream and name == "train":
            raise RecipeError(f"data.source: train is a {type(part).__name__}: give a torch Dataset with a length")
        if stream and (isinstance(part, (str, bytes, Tensor, Mapping)) or not hasattr(part, "__iter__")):
            raise RecipeError(f"data.source: {name} is a {type(part).__name__}: give a torch Dataset, or a loader")
        if stream and iter(part) is part:
            raise RecipeError(f"data.source: {name} can be read only once: give a torch Dataset, or a loader")
        if is_dataset(part) and not len(part):
            raise RecipeError(f"data.source: {spec.source}: {name} is empty")


def _example(source: Any, request: Request) -> Tensor | Inputs:
    """The first samples, as inputs."""
    some = Subset(source, range(min(EXAMPLES, len(source)))) if is_dataset(source) else source
    raw = next(iter(loader_of(some, EXAMPLES, request.task.collate)), None)
    if raw is None:
        raise RecipeError("data.source: there is no sample to trace the model with")
    (batch,) = rebatched([request.task.batch(raw)], EXAMPLES, EXAMPLES)
    inputs = batch.inputs
    alone = len(inputs.args) == 1 and not inputs.kwargs and isinstance(inputs.args[0], Tensor)
    return inputs.args[0] if alone else inputs


def _calibration(spec: OwnDataSpec, source: Any, request: Request) -> list[Batch] | None:
    if spec.calibration is None:
        return None
    options = spec.calibration
    if options.path or options.files or options.augment:
        raise RecipeError("data.calibration takes the function's own data: leave path, files and augment out")
    if is_dataset(source):
        batches = calibrated(source, options.images, request.seed, request.task, spec.source)
    else:
        batches = rebatched(_first(source, options.images, request), BATCH, options.images)
    return batches if spec.labels else [Batch(batch.inputs) for batch in batches]


def _first(source: Any, images: int, request: Request) -> list[Batch]:
    """The first batches of a stream, until they hold `images` samples."""
    batches: list[Batch] = []
    count = 0
    for raw in loader_of(source, BATCH, request.task.collate):
        batches.append(request.task.batch(raw))
        count += request.task.count(batches[-1])
        if count >= images:
            break
    return batches


def _identity(spec: OwnDataSpec) -> str:
    """What the data depends on beside its samples: the code that makes it, and its arguments."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in user_code.files_of(spec.source)]
    place, name = user_code.split(spec.source)
    texts += [] if user_code.is_file_name(place) else [user_code.code_of(place)]
    return "\0".join([name, repr(sorted(spec.kwargs.items())), *texts])
