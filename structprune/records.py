"""The plain data in which criteria, planning and surgery meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import strict_json
from .errors import PlanError
from .names import shown
from .plan_schema import PLAN_SCHEMA, check_plan

BESIDE = ("architecture", "weights")  # what `structprune.save` adds to a plan in its file


@dataclass(frozen=True)
class Sensitivity:
    """What pruning one group alone costs: `{group name: {units kept: loss}}`, 0 where all stay; and `notes` on it."""

    losses: dict[str, dict[int, float]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scores:
    """One importance a unit for each group: `{group name: float64 array of shape (units,)}`. Low goes first.

    `unscored` says of groups without scores why; a plan keeps them whole. `notes` is what a user should know of the
    scores. `widths` are those for which a criterion ranked layer by layer, and the plan's then. `sensitivity` is for
    the allocation of that name.
    """

    criterion: str
    values: dict[str, np.ndarray]
    unscored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    widths: dict[str, int] | None = None
    sensitivity: Sensitivity | None = None


@dataclass
class Plan:
    """Which channels stay. Plain data: it can be saved, edited, compared and applied to another copy.

    `keep` maps each sliced parameter or buffer, by its state_dict key, to the kept indices of each sliced
    axis (for axis 1 of a grouped convolution's weight, a list of indices for each block of axis 0); `shapes` holds the
    dense shapes of the same; `attributes` the numbers that modules must follow. `statistics` names the calls that take
    a statistic over channels (the `call`th of an op in one forward pass, from 0), and what is left for it; `module` is
    None where it is not known who makes the call.
    `program` holds the slim network's calls if it is to be an `fx.GraphModule` (see `graph.program`), else None.
    `groups` gives the kept units of each group, `macs`, `macs_by_operator` and `params` the exact counts of
    the dense and the slim network, `latency` the milliseconds that were predicted where the plan was made with a
    runtime's costs (and `rounds`, what was measured), and `notes` says where a budget could not be met closely.
    """

    criterion: str
    allocation: str
    budget: dict[str, float]
    constraints: dict[str, Any]
    groups: dict[str, dict[str, Any]]
    keep: dict[str, dict[str, Any]]
    shapes: dict[str, list[int]]
    attributes: dict[str, dict[str, Any]]
    macs: dict[str, int]
    macs_by_operator: dict[str, dict[str, int]]
    params: dict[str, int]
    statistics: list[dict[str, Any]] = field(default_factory=list)
    program: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    schema: str = PLAN_SCHEMA

    @property
    def widths(self) -> dict[str, int]:
        """How many units of each group stay."""
        return {name: len(group["kept"]) for name, group in self.groups.items()}

    def then(self, other: Plan) -> Plan:
        """The plan of both cuts on the dense network: of this plan, and of another on the network that it leaves.

        `prune(dense, first.then(other))` is `prune(prune(dense, first), other)`, and `verify` holds that against the
        dense network. Kept units and indices are the dense network's, and the groups are this plan's. Counts are those
        of the dense and of the last network. `budget` says what the last network was to be within: shares become
        amounts, speedups are multiplied. What each cut was asked for is in `constraints["cuts"]`. The composition of
        three plans is the same however they are paired.

        Args:
            other: a plan made on `prune(dense, self)`, traced anew with example inputs of the same size. Either may be
                in graph form; the last network is then in graph form too.
        Raises:
            PlanError: where `other` was made for another network, and where the plans do not tell which of its groups
                are which of this plan's.
        """
        from .plan.composition import compose  # which needs this module

        if not isinstance(other, Plan):
            raise PlanError(f"then: {shown(other)} is not a plan: give one made on the network that this plan leaves")
        return compose(self, other)

    def to_json(self) -> str:
        """Raises PlanError for a plan that could not be read back."""
        self.check()
        return pretty_json(self._fields())

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan in a text that `to_json` or `structprune.save` wrote, and that may have been edited since.

        Raises PlanError, which names the place, for what is no JSON (a key twice and NaN included) or no sound plan:
        for keys that a plan does not have, values of other types (1.0 and true are not whole numbers), indices that do
        not rise or that the shape does not have, blocks where a weight has none.
        """
        if not isinstance(text, str):
            raise PlanError(f"not a plan: {type(text).__name__}, where text is wanted")
        try:
            data = strict_json.parse(text)
        except ValueError as error:
            raise PlanError(f"not a plan: {error}") from error
        return cls.from_data(data)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan in a file. Raises PlanError, as `from_json` does, and for a file that can't be read."""
        try:
            return cls.from_data(strict_json.read(path))
        except (OSError, ValueError, PlanError) as error:
            raise PlanError(f"{path}: {error}") from error

    @classmethod
    def from_data(cls, data: Any) -> Plan:
        """The plan of these fields, by name; what `structprune.save` adds to a file is left out. Raises PlanError."""
        if not isinstance(data, dict):
            raise PlanError(f"not a plan: {shown(data)}, where an object is wanted")
        fields = {key: value for key, value in data.items() if key not in BESIDE}
        check_plan(fields)
        return cls(**{**fields, "schema": PLAN_SCHEMA})

    def check(self) -> None:
        """Raises PlanError unless every field is sound by itself and beside the others. See `surgery.check` for whether
        it fits a model."""
        check_plan(self._fields())

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def pretty_json(data: dict[str, Any]) -> str:
    """JSON with a line for each entry of the first two levels: long index lists stay on one line."""
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"  {_json(k)}: {_json(v)}" for k, v in value.items())
            lines.append(f" {_json(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {_json(key)}: {_json(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(value: Any) -> str:
    try:
        return strict_json.dump(value)
    except (TypeError, ValueError) as error:
        raise PlanError(f"the plan can't be written as JSON: {error}") from error
