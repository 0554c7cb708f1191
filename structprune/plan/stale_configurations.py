"""Configurations that a cut leaves behind: numbers that no code reads while it runs, but a constructor would."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..module_numbers import is_number
from ..modules import walk
from ..records import Plan

_WIDTHS = re.compile(r"size|dim|width|channels|embd|inner|d_model|d_ff|d_kv|heads|filters|planes")
_OTHERS = re.compile(
    r"image|patch|vocab|window|kernel|position|batch|chunk|max|sample|pool|stride|num_channels|_id|depth"
)


def stale_configurations(model: nn.Module, plan: Plan) -> list[str]:
    """A note for each configuration whose numbers say what the layers were before: those that nothing mends.

    What code reads when it runs follows the widths (`Plan.attributes`). The rest is told by its name and value: it is
    called a width, and is the dense length of an axis that was cut, or what an attribute of that name was.
    """
    notes, met = [], set()
    modules = dict(walk(model))
    mended = {  # an object that several modules hold is mended through one of them
        (id(vars(modules[path]).get(name.partition(".")[0])), name.partition(".")[2])
        for path, numbers in plan.attributes.items()
        for name in numbers
        if "." in name and path in modules
    }
    for path, module in walk(model):
        for name in ("config", "cfg"):
            holder = vars(module).get(name)
            if holder is None or id(holder) in met:
                continue
            met.add(id(holder))
            stale = [
                f"{field}={value}"
                for field, value in _numbers(holder)
                if (id(holder), field) not in mended and _cut(plan, path, field, value)
            ]
            if stale:
                where = f"{path}.{name}".lstrip(".")
                notes.append(
                    f"{where} of the slim {type(module).__name__} still says {', '.join(sorted(stale))}, and layers "
                    "are narrower now: structprune.load rebuilds them, a constructor that is given it does not"
                )
    return notes


def _numbers(holder: Any) -> Iterator[tuple[str, int]]:
    fields = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
    for field, value in fields.items():
        if isinstance(field, str) and is_number(value) and _WIDTHS.search(field) and not _OTHERS.search(field):
            yield field, int(value)


def _cut(plan: Plan, path: str, field: str, value: int) -> bool:
    head = path + "." if path else ""
    for key, axes in plan.keep.items():
        if key.startswith(head) and any(plan.shapes[key][int(axis)] == value for axis in axes):
            return True
    return any(
        inner.startswith(head) and field in numbers and numbers[field] != value
        for inner, numbers in plan.attributes.items()
    )
