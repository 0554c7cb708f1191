"""The plain data in which criteria, planning and surgery meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from . import strict_json
from .errors import PlanError
from .messages import shown
from .plan_schema import (
    PLAN_SCHEMA,
    Amounts,
    AmountsByOperator,
    Constraints,
    GroupEntry,
    KeptAxes,
    Latency,
    Merges,
    Program,
    Statistic,
    check_plan,
)

BESIDE = ("architecture", "weights")  # what `structprune.save` adds to a plan in its file


@dataclass(frozen=True)
class Sensitivity:
    """What pruning one group alone costs: `{group name: {units kept: loss}}`, 0 where all stay; and `notes` on it.

    `inputs` says what the losses are of: "samples", or "random" inputs in their place.
    """

    losses: dict[str, dict[int, float]]
    notes: list[str] = field(default_factory=list)
    inputs: Literal["samples", "random"] = "samples"


@dataclass(frozen=True)
class Scores:
    """One importance a unit for each group: `{group name: float64 array of shape (units,)}`. Low goes first.

    `unscored` says of groups without scores why; a plan keeps them whole. `notes` is what a user should know of the
    scores. `widths` are those for which a criterion ranked layer by layer, and the plan's then. `sensitivity` is for
    allocations that weigh measured losses.
    """

    criterion: str
    values: dict[str, np.ndarray]
    unscored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    widths: dict[str, int] | None = None
    sensitivity: Sensitivity | None = None


@dataclass(repr=False)
class Plan:
    """Which channels stay. Plain data: it can be saved, edited, compared and applied to another copy.

    Attributes:
        criterion: what ranked the units.
        allocation: how the budget was shared among the groups.
        budget: what was allowed, as it was given.
        constraints: `min_channels`, `max_ratio`, `align` and `ignore`, as they were given.
        groups: for each group its `units` and the indices of those that are `kept`.
        keep: for each sliced parameter or buffer, by its state_dict key, the kept indices of each sliced axis (for axis
            1 of a grouped convolution's weight, a list of indices for each block of axis 0).
        shapes: the dense shapes of the same.
        attributes: for each module the numbers that must follow.
        macs: exact multiply-adds of the dense and the slim network.
        macs_by_operator: the same for each operator.
        params: exact parameters of the dense and the slim network.
        statistics: calls that take a statistic over channels (the `call`th of an op in one forward pass, from 0), and
            what is left for each; `module` is None where it is not known who makes the call.
        program: the slim network's calls if it is to be an `fx.GraphModule` (see `graph.program`), else None.
        merges: what is merged into what, where channels are merged and not dropped; else None.
        latency: the milliseconds that were predicted, where the plan was made with a runtime's costs; and `rounds`,
            what was measured.
        notes: where a budget could not be met closely, and what else a user should know.
        schema: the version of this record.

    Example:
        >>> sorted(plan.keep)
        ['0.bias', '0.weight', '2.bias', '2.weight', '4.weight']
    """

    criterion: str
    allocation: str
    budget: dict[str, float]
    constraints: Constraints
    groups: dict[str, GroupEntry]
    keep: dict[str, KeptAxes]
    shapes: dict[str, list[int]]
    attributes: dict[str, dict[str, JsonValue]]
    macs: Amounts
    macs_by_operator: AmountsByOperator
    params: Amounts
    statistics: list[Statistic] = field(default_factory=list)
    program: Program | None = None
    merges: Merges | None = None
    latency: Latency | None = None
    notes: list[str] = field(default_factory=list)
    schema: str = PLAN_SCHEMA

    def __repr__(self) -> str:
        try:
            return f"<Plan {self._summary()}>"
        except (AttributeError, KeyError, TypeError, ValueError):  # one that was edited, and holds together no more
            return object.__repr__(self)

    def _summary(self) -> str:
        """What it was asked for, and what that comes to."""
        cut = sum(len(group["kept"]) < group["units"] for group in self.groups.values())
        limits = [f"{name} {amount:,}" for name, amount in self.budget.items()]
        parts = [
            f"{cut} of {len(self.groups)} groups cut",
            *(_share(counts, name) for counts, name in ((self.macs, "MACs"), (self.params, "parameters"))),
            *([f"{len(self.notes)} notes"] if self.notes else []),
        ]
        about = [text for text in (self.criterion, self.allocation, " and ".join(limits)) if text]
        return f"by {', '.join(about) or 'hand'}: {', '.join(parts)}"

    @property
    def widths(self) -> dict[str, int]:
        """How many units of each group stay.

        Example:
            >>> list(plan.widths)
            ['0', '2']
        """
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

        Returns:
            One plan on the dense network.

        Raises:
            PlanError: where `other` was made for another network, and where the plans do not tell which of its groups
                are which of this plan's.

        Example:
            >>> once = sp.prune(model, plan)
            >>> again = sp.trace(once, x)
            >>> second = sp.plan(again, sp.score(again, "l1"), budget={"macs": 0.8}, align=1)
            >>> plan.then(second).macs["slim"] == second.macs["slim"]
            True
        """
        from .plan.composition import compose  # which needs this module

        if not isinstance(other, Plan):
            raise PlanError(f"then: {shown(other)} is not a plan: give one made on the network that this plan leaves")
        return compose(self, other)

    def to_json(self) -> str:
        """The plan as text.

        Returns:
            JSON, with a line for each entry.

        Raises:
            PlanError: the plan could not be read back.

        Example:
            >>> plan.to_json()[:20]
            '{\\n "criterion": "l1"'
        """
        self.check()
        return pretty_json(self._fields())

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan in a text that `to_json` or `structprune.save` wrote, and that may have been edited since.

        Args:
            text: JSON.

        Returns:
            A plan that is sound by itself.

        Raises:
            PlanError: this is no JSON (a key twice and NaN included) or no sound plan: keys that a plan does not have,
                values of other types (1.0 and true are not whole numbers), indices that do not rise or that the shape
                does not have, blocks where a weight has none. The message names the place.

        Example:
            >>> sp.Plan.from_json(plan.to_json()) == plan
            True
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
        """The plan in a file, as by `from_json`.

        Args:
            path: the file.

        Returns:
            A plan that is sound by itself.

        Raises:
            PlanError: the file can't be read or holds no sound plan.

        Example:
            >>> _ = Path("plan.json").write_text(plan.to_json())
            >>> sp.Plan.read(Path("plan.json")) == plan
            True
        """
        try:
            return cls.from_data(strict_json.read(path))
        except (OSError, ValueError, PlanError) as error:
            raise PlanError(f"{path}: {error}") from error

    @classmethod
    def from_data(cls, data: Any) -> Plan:
        """The plan in what JSON was parsed to.

        Args:
            data: fields by name; what `structprune.save` adds to a file is left out.

        Returns:
            A plan that is sound by itself.

        Raises:
            PlanError: these are not a sound plan's fields.

        Example:
            >>> sp.Plan.from_data(json.loads(plan.to_json())).widths == plan.widths
            True
        """
        if not isinstance(data, dict):
            raise PlanError(f"not a plan: {shown(data)}, where an object is wanted")
        fields = {key: value for key, value in data.items() if key not in BESIDE}
        check_plan(fields)
        return cls(**{**fields, "schema": PLAN_SCHEMA})

    def check(self) -> None:
        """Checks every field, by itself and beside the others; `surgery.check` tells whether the plan fits a model.

        Raises:
            PlanError: one is not; the message names the place.

        Example:
            >>> plan.check()
        """
        check_plan(self._fields())

    def _fields(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in fields.items() if name != "merges" or value is not None}


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


def _share(counts: Amounts, name: str) -> str:
    """What is left of a count, as a person reads it."""
    slim, dense = counts["slim"], counts["dense"]
    return f"{slim:,} of {dense:,} {name}" + (f" ({100 * slim / dense:.1f} %)" if dense else "")
