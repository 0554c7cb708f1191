"""What all parts of a recipe share: strict models, numbers, paths, and mistakes inside a part.

A part of a recipe is a frozen pydantic model beside the function that it configures. A registry of such parts (model
sources, data sources, ...) picks the spec that fits a mapping and checks it by `checked_by`, so that a mistake deep in
it is reported under its own key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo


class Strict(BaseModel):
    """A part of a recipe: it has no unknown keys, and can't change after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def only_read(info: ValidationInfo) -> bool:
    """Whether a recipe is only read: what takes torch, timm or an engine to know is checked later (see `recipe`)."""
    return bool((info.context or {}).get("only_read"))


Spec = TypeVar("Spec", bound=BaseModel)


def _no_truth_value(value: Any) -> Any:
    """pydantic takes true for 1."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is a truth value: give a number")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth_value)]
Number = Annotated[float, BeforeValidator(_no_truth_value)]


def beside_recipe(path: str, info: ValidationInfo) -> str:
    """Resolves a path of a recipe: relative to the recipe's folder if it exists there, else to the current folder.

    Args:
        path: As it stands in the recipe.
        info: The validation's; its context may hold `folder`, that of the recipe's file.

    Returns:
        The path beside the recipe if it exists, else `path`.
    """
    folder = (info.context or {}).get("folder")
    if folder is None or not path or os.path.isabs(path):
        return path
    beside = os.path.normpath(os.path.join(folder, path))
    try:
        return beside if Path(beside).exists() else path
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return path


RecipePath = Annotated[str, AfterValidator(beside_recipe)]


class Nested(ValueError):
    """The mistakes inside a part that a registry checked: `error`, with places inside `spec`."""

    def __init__(self, error: ValidationError, spec: type[BaseModel]) -> None:
        super().__init__(str(error))
        self.error, self.spec = error, spec


class Flaws(ValueError):
    """Several mistakes of a part as a whole, with a message for each; `mistakes` separates them."""

    def __init__(self, messages: Iterable[str]) -> None:
        self.messages = tuple(messages)
        super().__init__("; ".join(self.messages))


def checked_by(spec: type[Spec], data: Any, info: ValidationInfo) -> Spec:
    """Checks `data` by `spec`. Raises Nested, which `mistakes` opens."""
    try:
        return spec.model_validate(data, context=info.context)
    except ValidationError as error:
        raise Nested(error, spec) from error


def mistakes(error: ValidationError) -> Iterator[tuple[dict[str, Any], type[BaseModel] | None]]:
    """Yields each mistake as pydantic describes it, with its place in the whole, and the spec of its part.

    Args:
        error: The error that a validation raised.

    Yields:
        (mistake, spec): `mistake` has `loc`, `msg`, `type` and `input`; `spec` is the model whose keys are known at the
        place of the mistake, or None for the outermost model.
    """
    for entry in error.errors():
        inner = entry.get("ctx", {}).get("error")
        if isinstance(inner, Nested):
            for each, spec in mistakes(inner.error):
                yield {**each, "loc": (*entry["loc"], *each["loc"])}, spec or _part(inner.spec, each["loc"][:-1])
        elif isinstance(inner, Flaws):
            for message in inner.messages:
                yield {**entry, "msg": message}, None
        else:
            yield dict(entry), None


def _part(spec: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The model whose keys are known at a place inside a `spec`."""
    for name in place:
        field = spec.model_fields.get(str(name))
        kinds = (field.annotation, *get_args(field.annotation)) if field is not None else ()
        spec = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), spec)
    return spec
