"""The parts of the documents that are generated: every key of a recipe, every field of a report, and the criteria.

Enters nothing but the specs, records and registries; leaves Markdown. It knows nothing of sites.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .criteria import CRITERIA
from .criteria.registry import NEEDS
from .data import SOURCES, DataSpec
from .data.user_function import OwnDataSpec
from .models import ModelSpec
from .models.registry import MODEL_SOURCES
from .recipe import RECOVERIES, Recipe, RecoverySpec
from .recipe.recovery import OwnRecoverySpec
from .report import Report
from .sweep.specs import SweepSpec
from .tasks import TASKS, TaskSpec
from .tasks.building import OwnTaskSpec
from .train.method import TRAINING_METHODS, MethodSpec, OwnMethodSpec

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", dict: "mapping", Any: "anything"}
Spec = type[BaseModel]


def recipe_reference() -> str:
    """Every key that a recipe may have, in Markdown: a section for each part, with types, defaults and bounds."""
    return "\n".join(_section(spec, titles) for spec, titles in recipe_parts().items())


def recipe_parts() -> dict[Spec, list[str]]:
    """The specs that a recipe is made of, each with the places where it stands, the recipe itself first."""
    parts: dict[Spec, list[str]] = {Recipe: ["The recipe"]}
    _add_parts(parts, Recipe, "")
    return parts


def report_reference() -> str:
    """Every field of report.json, in Markdown: a section for each part, with types."""
    return "\n".join(_record_section(record, titles) for record, titles in report_parts().items())


def report_parts() -> dict[Spec, list[str]]:
    """The records that a report is made of, each with the places where it stands, the report itself first."""
    parts: dict[Spec, list[str]] = {Report: ["The report"]}
    _add_parts(parts, Report, "")
    return parts


def sweep_reference() -> str:
    """Every key that a sweep's file may have, in Markdown, with types, defaults and bounds."""
    return _section(SweepSpec, ["The file of a sweep"])


def criteria_reference() -> str:
    """The criteria, what each needs and where it was published, as a Markdown table."""
    rows = ["| criterion | ranks by | needs | coupled layers | source |", "|---|---|---|---|---|"]
    for name, entry in sorted(CRITERIA.items()):
        needs = "; ".join(dict.fromkeys(NEEDS[need] for need in sorted(entry.needs)))
        cells = (f"`{name}`", entry.description, needs, entry.combine or "as a whole", entry.source)
        rows.append(_row(cells))
    return "\n".join(rows) + "\n"


def _add_parts(parts: dict[Spec, list[str]], spec: Spec, place: str) -> None:
    for name, field in _fields(spec):
        path = f"{place}.{name}" if place else name
        for part, label in _alternatives(field.annotation):
            title = f"`{path}`" + (f", {label}" if label else "")
            titles = parts.setdefault(part, [])
            if title not in titles:
                titles.append(title)
                _add_parts(parts, part, path)


def _head(spec: Spec, titles: list[str], columns: tuple[str, ...]) -> list[str]:
    title = f"### {'; '.join(titles)}"
    return [title, "", inspect.getdoc(spec) or "", "", _row(columns), "|" + "---|" * len(columns)]


def _record_section(record: Spec, titles: list[str]) -> str:
    lines = _head(record, titles, ("field", "type", "meaning"))
    for name, field in _fields(record):
        lines.append(_row((f"`{name}`", _kind(field.annotation), field.description or "")))
    return "\n".join(lines) + "\n"


def _section(spec: Spec, titles: list[str]) -> str:
    lines = _head(spec, titles, ("key", "type", "default", "meaning"))
    for name, field in _fields(spec):
        kind = " ".join([_kind(field.annotation), *_bounds(field)])
        lines.append(_row((f"`{name}`", kind, _default(field), field.description or "")))
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _fields(spec: Spec) -> list[tuple[str, FieldInfo]]:
    """The keys of a part; a field that a spec sets itself is not a key."""
    return [(field.alias or name, field) for name, field in spec.model_fields.items() if not field.exclude]


def _alternatives(annotation: Any) -> Iterator[tuple[Spec, str]]:
    """The specs that a key may hold, with a label for those that are one of several."""
    families: dict[Spec, list[tuple[Spec, str]]] = {
        ModelSpec: [(source.spec, f"by `{key}`") for key, source in MODEL_SOURCES.items()],
        DataSpec: [*((SOURCES[name].spec, f"`{name}`") for name in SOURCES), (OwnDataSpec, "your own")],
        TaskSpec: [*((TASKS[name].spec, f"`{name}`") for name in TASKS), (OwnTaskSpec, "your own")],
        MethodSpec: [
            *((TRAINING_METHODS[name].spec, f"`{name}`") for name in TRAINING_METHODS),
            (OwnMethodSpec, "your own"),
        ],
        RecoverySpec: [
            *((RECOVERIES[name].spec, f"`{name}`") for name in RECOVERIES),
            (OwnRecoverySpec, "your own"),
        ],
    }
    specs = [kind for kind in _leaves(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    for spec in specs:
        yield from families.get(spec, [(spec, "")])


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that make up an annotation."""
    inner = () if get_origin(annotation) is Literal else get_args(annotation)
    if not inner:
        yield annotation
    for part in inner[:1] if get_origin(annotation) is Annotated else inner:
        yield from _leaves(part)


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_kind(inner[0]), *_limits(inner[1:])])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        parts = [part for part in inner if part is not type(None)]
        if len(parts) > 1 and all(isinstance(part, type) and issubclass(part, BaseModel) for part in parts):
            return "mapping"
        return " or ".join(_kind(part) for part in parts if part is not int or float not in parts)
    if origin is list or (origin is tuple and inner[-1] is Ellipsis):
        return f"list of {_kind(inner[0])}s"
    if origin is tuple:
        return "[" + ", ".join(_kind(part) for part in inner) + "]"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return WORDS[annotation]


def _bounds(field: FieldInfo) -> list[str]:
    return _limits(tuple(field.metadata))


def _limits(metadata: tuple[Any, ...]) -> list[str]:
    """Bounds in signs: of a field, or inside its type."""
    limits = []
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            limits += _limits(tuple(entry.metadata))
        limits += [f"{sign} {getattr(entry, name):,}" for name, sign in BOUNDS.items() if hasattr(entry, name)]
    return limits


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, BaseModel):
        name = getattr(value, "name", None)
        return f"`{name}`" if name else "its defaults"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"`{text.removesuffix('.0')}`"
