"""What a plan may hold: the types of its fields, and what must hold between them.

Enters the plain data of a plan, from a file or made in Python; leaves nothing, or a PlanError that names the place. It
knows nothing of the model: that the plan fits one, `surgery.check` says. `structprune.records.Plan` has the same
fields, of the same types, and says what they mean. The parts of a plan are dictionaries, as in its file.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    JsonValue,
    Tag,
    ValidationError,
)
from typing_extensions import NotRequired, TypedDict, TypeIs  # pydantic takes typing's own from Python 3.12

from .errors import PlanError
from .messages import shown, unknown

PLAN_SCHEMA = "structprune.plan/2"
READ = ("structprune.plan/1", PLAN_SCHEMA)  # those that `Plan.from_json` reads; their fields are the same


def _rising(indices: list[int]) -> list[int]:
    if not all(map(operator.lt, indices, indices[1:])):
        raise ValueError("indices must rise, and none may come twice")
    return indices


def _equally_long(rows: list[list[int]]) -> list[list[int]]:
    if len({len(row) for row in rows}) > 1:
        raise ValueError("each block must keep the same number of indices")
    return rows


Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(ge=0, lt=2**40)]
Axis = Annotated[str, Field(pattern="^[0-9]$")]
Indices = Annotated[list[Size], Field(min_length=1), AfterValidator(_rising)]
Blocks = Annotated[list[Indices], Field(min_length=2), AfterValidator(_equally_long)]


Into = Annotated[list[Annotated[int, Field(ge=-1, lt=2**40)]], Field(min_length=1)]


def _kind(kept: Any) -> str:
    return "blocks" if isinstance(kept, list) and kept and isinstance(kept[0], list) else "indices"


Kept = Annotated[Annotated[Indices, Tag("indices")] | Annotated[Blocks, Tag("blocks")], Discriminator(_kind)]
KeptAxes = dict[Axis, Kept]
Name = Annotated[str, Field(min_length=1)]  # `surgery.graph_form` refuses those that are no identifiers


def in_blocks(kept: Kept) -> TypeIs[Blocks]:
    """Whether each block of axis 0 keeps indices of its own."""
    return isinstance(kept[0], list)


class GroupEntry(TypedDict):
    """A group's units, and the indices of those that are kept."""

    units: Annotated[int, Field(ge=1, lt=2**40)]
    kept: Indices


class MergedAxis(TypedDict):
    """What becomes of the positions of an axis: each is merged into the one that `into` names.

    That is itself if it stays, and -1 if it is dropped. What makes channels is merged by the mean, what consumes them
    by the sum. Blocks are as in `keep`.
    """

    by: Literal["mean", "sum"]
    into: Into | Annotated[list[Into], Field(min_length=2)]


class NormedLayer(TypedDict):
    """The layer whose filters a BatchNorm scales, by the keys of its tensors, and the axis of its weight that they are
    on."""

    weight: str
    axis: Axis
    bias: str | None


class MergedNorm(TypedDict):
    """A BatchNorm of which channels are merged, by the keys of its tensors; scale and filter are merged as one."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    eps: Annotated[FiniteFloat, Field(ge=0)]
    layer: NormedLayer | None


class Merges(TypedDict):
    """What is merged: for each group the unit that each unit is merged into (itself if it stays, -1 if it is dropped),
    the same for axes of parameters and buffers, and the BatchNorms among these."""

    groups: dict[str, Into]
    axes: dict[str, dict[Axis, MergedAxis]]
    norms: list[MergedNorm]


class Statistic(TypedDict):
    """A call of an op that takes a statistic over channels, and what each axis of each of its arguments keeps."""

    call: Count
    op: str
    module: str | None  # None: not known, as in a plan composed of one in graph form
    reduces: bool
    keep: dict[Axis, dict[Axis, Indices]]


class Constant(TypedDict):
    """A tensor of a program: complex numbers as pairs, and numbers that JSON lacks as text."""

    dtype: Name
    values: JsonValue
    shape: list[Size]


class Call(TypedDict):
    """One node of a program; `surgery.graph_form` knows the kinds, and which targets and arguments they take."""

    name: Annotated[str, Field(min_length=1)]
    kind: str
    target: str
    args: list[JsonValue]
    kwargs: dict[Name, JsonValue]


class Path(TypedDict):
    """The calls of a forward pass."""

    inputs: list[Name]
    constants: dict[Name, Constant]
    nodes: list[Call]
    output: JsonValue


class Program(Path):
    """A forward pass, and the others that the network makes at other batch sizes."""

    paths: NotRequired[list[Path]]


class Amounts(TypedDict):
    """An amount of both networks."""

    dense: Count
    slim: Count


class AmountsByOperator(TypedDict):
    """The same for each operator."""

    dense: dict[str, Count]
    slim: dict[str, Count]


Budget = dict[str, FiniteFloat | Count]


class Limits(TypedDict, total=False):
    """What a cut had to keep to."""

    min_channels: int
    max_ratio: FiniteFloat
    align: int | dict[str, int]
    ignore: list[str]


class Cut(TypedDict):
    """One cut of a composed plan: what was asked of it, and what it came to."""

    criterion: str
    allocation: str
    budget: Budget
    constraints: Limits
    macs: Amounts
    params: Amounts


class Constraints(Limits, total=False):
    """What a plan had to keep to; of a composed one only what was asked of each cut, in turn."""

    cuts: list[Cut]


class Round(TypedDict):
    """One round of planning by measuring: speedups that were asked for, predicted and measured."""

    goal: FiniteFloat
    predicted: FiniteFloat
    measured: FiniteFloat
    ci95: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


class Latency(TypedDict):
    """The milliseconds that were predicted; what was measured, and what the costs were corrected by."""

    dense: FiniteFloat
    slim: FiniteFloat
    rounds: NotRequired[list[Round]]
    correction: NotRequired[FiniteFloat]


class PlanData(BaseModel):
    """A plan as plan.json holds it, beside what `structprune.save` adds: `architecture` and `weights`."""

    model_config = ConfigDict(extra="forbid", strict=True)  # and so of the dictionaries in it

    schema_: Literal["structprune.plan/1", "structprune.plan/2"] = Field(alias="schema")
    criterion: str
    allocation: str
    budget: Budget
    constraints: Constraints
    groups: dict[str, GroupEntry]
    keep: dict[str, KeptAxes]
    shapes: dict[str, list[Size]]
    attributes: dict[str, dict[str, JsonValue]]
    macs: Amounts
    macs_by_operator: AmountsByOperator
    params: Amounts
    statistics: list[Statistic] = Field(default_factory=list)
    program: Program | None = None
    merges: Merges | None = None
    latency: Latency | None = None
    notes: list[str] = Field(default_factory=list)


def check_plan(data: dict[str, Any]) -> None:
    """Raises PlanError unless `data`, the fields of a plan by name, is a whole and sound plan."""
    schema = data.get("schema")
    if schema not in READ:
        raise PlanError(f"not a plan: its schema is {shown(schema)}, this version reads {' and '.join(READ)}")
    try:
        plan = PlanData.model_validate(data)
    except ValidationError as error:
        raise PlanError(_one_line(error)) from None
    except RecursionError:
        raise PlanError("not a sound plan: it is nested too deeply") from None
    for name, group in plan.groups.items():
        if group["kept"][-1] >= group["units"]:
            raise _impossible(f"groups.{name}", f"keeps unit {group['kept'][-1]} of {group['units']}")
    if plan.program is not None and plan.attributes:
        raise _impossible("attributes", "must be empty beside a program, which has its numbers itself")
    if set(plan.keep) != set(plan.shapes):
        odd = sorted(set(plan.keep) ^ set(plan.shapes))[0]
        raise _impossible(odd, "must be in both keep and shapes")
    for key, axes in plan.keep.items():
        _check_axes(key, axes, plan.shapes[key])
    if plan.merges is not None:
        _check_merges(plan, plan.merges)


def _check_axes(key: str, axes: KeptAxes, shape: list[int]) -> None:
    if not axes:
        raise _impossible(key, "names no axis in keep")
    for axis, kept in axes.items():
        if int(axis) >= len(shape):
            raise _impossible(key, f"has no axis {axis}: its shape is {shape}")
        blocks = kept if in_blocks(kept) else [kept]
        if max(block[-1] for block in blocks) >= shape[int(axis)]:
            raise PlanError(f"the plan keeps impossible indices of axis {axis} of {key}, whose shape is {shape}")
        if len(blocks) == 1:
            continue
        if axis != "1" or shape[0] % len(blocks):
            raise _impossible(key, f"has {len(blocks)} blocks on axis {axis} of {shape}: only axis 1 has, one for each")
        rows = axes.get("0")
        if rows is None:
            continue
        long = shape[0] // len(blocks)
        counts = [0] * len(blocks)
        for row in rows if not in_blocks(rows) else ():
            if row < shape[0]:
                counts[row // long] += 1
        if len(set(counts)) > 1:
            raise _impossible(key, f"keeps unequal numbers of its {len(blocks)} blocks on axis 0: {counts[:8]}")


def _check_merges(plan: PlanData, merges: Merges) -> None:
    for name, into in merges["groups"].items():
        if name not in plan.groups:
            raise _impossible(f"merges.groups.{name}", "is not among groups")
        group = plan.groups[name]
        _check_into(f"merges.groups.{name}", into, group["kept"], group["units"])
    for key, axes in merges["axes"].items():
        for axis, merged in axes.items():
            where = f"merges.axes.{key}.{axis}"
            kept = plan.keep.get(key, {}).get(axis)
            if kept is None:
                raise _impossible(where, "is not in keep")
            blocks, rows = kept if in_blocks(kept) else [kept], merged["into"]
            lines: list[Any] = rows if isinstance(rows[0], list) else [rows]
            if len(blocks) != len(lines) or in_blocks(kept) != isinstance(rows[0], list):
                raise _impossible(where, "must have as many blocks as keep has there")
            for block, line in zip(blocks, lines, strict=True):
                _check_into(where, line, block, plan.shapes[key][int(axis)])
    for norm in merges["norms"]:
        _check_norm(norm, merges["axes"])


def _check_into(where: str, into: list[int], kept: list[int], size: int) -> None:
    """Raises PlanError unless what stays is merged into itself, and all else into what stays or into nothing."""
    if len(into) != size:
        raise _impossible(where, f"says of {len(into)} of {size} positions what they are merged into")
    stays = set(kept)
    if any(into[place] != place for place in kept):
        raise _impossible(where, "merges what is kept into something else")
    if any(place not in stays for place in into if place >= 0):
        raise _impossible(where, "merges into what is not kept")


def _check_norm(norm: MergedNorm, axes: dict[str, dict[Axis, MergedAxis]]) -> None:
    """Raises PlanError unless all tensors of a BatchNorm, and of the layer that it scales, are merged alike."""
    layer = norm["layer"]
    places = [(norm["mean"], "0"), (norm["variance"], "0"), (norm["weight"], "0"), (norm["bias"], "0")]
    if layer is not None:
        places += [(layer["weight"], layer["axis"]), (layer["bias"], "0")]
    first = axes.get(norm["mean"], {}).get("0")
    for key, axis in places:
        if key is not None and (first is None or axes.get(key, {}).get(axis) != first or first["by"] != "mean"):
            raise _impossible(f"merges.norms.{norm['mean']}", f"needs {key} to be merged as the others, by the mean")


def _impossible(what: str, why: str) -> PlanError:
    return PlanError(f"not a sound plan: {shown(what)} {why}")


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    location = [part for part in first["loc"] if part not in ("indices", "blocks")]
    place = ".".join(str(part)[:80] for part in location)
    if first["type"] == "missing":
        return f"not a whole plan: {place} is missing"
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in PlanData.model_fields.items()] if len(location) == 1 else []
        return f"not a sound plan: {unknown('key', str(location[-1]), known)}"
    message = first["msg"].removeprefix("Value error, ")
    others = error.error_count() - 1
    rest = f" (and {others} more)" if others else ""
    return f"not a sound plan: {shown(place)}: {message}, not {shown(first['input'])}{rest}"
