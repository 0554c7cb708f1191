"""What a recipe may name: the records of every registry, in plain data for lists.

Enters nothing but the registries; leaves an entry for each record, with what the record says of itself. It knows
nothing of how entries are printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from .criteria import CRITERIA, Criterion
from .criteria.registry import NEEDS as NEEDS_OF_CRITERIA
from .data import SOURCES
from .errors import RecipeError
from .export import FORMATS, Format
from .messages import unknown
from .models.registry import MODEL_SOURCES
from .plan import ALLOCATIONS, Allocation
from .plan.allocations import NEEDS as NEEDS_OF_ALLOCATIONS
from .recipe import RECOVERIES
from .recover import Recovery
from .registry import Registry
from .runtimes import ENGINES
from .runtimes.engine import Engine
from .tasks import TASKS
from .tasks.task import TaskKind
from .train.method import TRAINING_METHODS


@dataclass(frozen=True)
class Entry:
    """A record of a registry.

    Attributes:
        name: as recipes call it.
        description: one line.
        needs: what it can't do without, in words by its short name.
        facts: what else its record says, by what that is.
    """

    name: str
    description: str
    needs: Mapping[str, str]
    facts: Mapping[str, Any]

    def to_data(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        return {"name": self.name, "description": self.description, "needs": list(self.needs), **self.facts}


@dataclass(frozen=True)
class Kind:
    """The records of one registry.

    Attributes:
        key: where a recipe names one.
        registry: has the records.
        needs: from a record to its needs.
        facts: from a record to its facts.
    """

    key: str
    registry: Registry[Any]
    needs: Callable[[Any], dict[str, str]] = field(default=lambda record: {})
    facts: Callable[[Any], dict[str, Any]] = field(default=lambda record: {})

    def entries(self) -> list[Entry]:
        """An entry for each record, in the order of their names."""
        return [
            Entry(name, record.description, self.needs(record), self.facts(record))
            for name, record in self.registry.items()
        ]


def _facts_of_criterion(record: Criterion) -> dict[str, Any]:
    return {"combine": record.combine, "layer_by_layer": record.sequential, "source": record.source}


def _facts_of_allocation(record: Allocation) -> dict[str, Any]:
    return {"uses": sorted(record.uses), "for_speed": record.for_speed}


def _needs_of_recovery(record: Recovery) -> dict[str, str]:
    # one whose keys decide, and that has no defaults for them, may need images
    needs_images = getattr(record.spec.model_construct(), "needs_images", True)
    return {"images": "calibration images"} if needs_images else {}


def _needs_of_engine(record: Engine) -> dict[str, str]:
    missing = {device: record.missing(device) for device in record.devices}
    return {line: line for device, text in missing.items() if text and (line := f"{device}: {text}")}


def _needs_of_format(record: Format) -> dict[str, str]:
    return {line: line} if (line := record.missing()) else {}


def _facts_of_engine(record: Engine) -> dict[str, Any]:
    opens = "ONNX files" if record.files else "modules"
    kernels = list(record.kernels_on)
    return {"opens": opens, "dtypes": list(record.dtypes), "devices": list(record.devices), "kernel_times_on": kernels}


def _facts_of_task(record: TaskKind) -> dict[str, Any]:
    return {**_keys(record, "name"), "gradients": record.gradients}


def _keys(record: Any, own: str) -> dict[str, Any]:
    """The keys of a record's part in a recipe, but `own`, where its name stands."""
    spec: type[BaseModel] = record.spec
    fields = {value.alias or key: value for key, value in spec.model_fields.items() if not value.exclude and key != own}
    required = [key for key, value in fields.items() if value.is_required()]
    return {"required_keys": required, "other_keys": [key for key in fields if key not in required]}


KINDS = {
    "criteria": Kind(
        "prune.criterion",
        CRITERIA,
        lambda record: {need: NEEDS_OF_CRITERIA[need] for need in sorted(record.needs)},
        _facts_of_criterion,
    ),
    "allocations": Kind(
        "prune.allocation",
        ALLOCATIONS,
        lambda record: {need: NEEDS_OF_ALLOCATIONS[need] for need in sorted(record.needs)},
        _facts_of_allocation,
    ),
    "recoveries": Kind("recover", RECOVERIES, _needs_of_recovery, lambda record: _keys(record, "method")),
    "engines": Kind("runtime.engine", ENGINES, _needs_of_engine, _facts_of_engine),
    "tasks": Kind("task", TASKS, facts=_facts_of_task),
    "data-sources": Kind("data.source", SOURCES, facts=lambda record: _keys(record, "source")),
    "model-sources": Kind("model", MODEL_SOURCES, facts=lambda record: _keys(record, record.name)),
    "formats": Kind("export.formats", FORMATS, _needs_of_format, lambda record: {"files": list(record.files)}),
    "training-methods": Kind("train.methods", TRAINING_METHODS, facts=lambda record: _keys(record, "method")),
}


def kinds_of(name: str | None) -> dict[str, Kind]:
    """The kind of this name, or all kinds if there is none. Raises RecipeError for a name that is unknown."""
    if name is None:
        return KINDS
    if name not in KINDS:
        raise RecipeError(unknown("kind", name, KINDS))
    return {name: KINDS[name]}
