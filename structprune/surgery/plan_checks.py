"""Whether a plan fits a model: nothing is sliced before all of it is known to be there, at its dense size.

A plan may have been edited by hand. What is sound in itself (`plan_schema`) may still not be a plan for this model:
other keys or shapes, blocks where the convolution has none, attributes that are not numbers of its modules, numbers
that contradict the weights beside them. Which channels are coupled only the graph knows; that indices of different
layers belong together shows when the slim network is held against the masked one (`structprune.verify`).
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..errors import PlanError
from ..messages import shown
from ..module_numbers import NOT_CONFIGURATIONS, read
from ..modules import tensors, walk
from ..records import Plan

_INTERNAL = frozenset(vars(nn.Module())) | {"training"}
# Numbers of torch.nn's own layers that count no channels.
_NO_SIZES = frozenset(
    (
        "stride",
        "padding",
        "dilation",
        "kernel_size",
        "output_padding",
        "_reversed_padding_repeated_twice",
        "num_layers",
        "start_dim",
        "end_dim",
        "dim",
        "eps",
        "momentum",
        "p",
        "num_batches_tracked",
        "norm_type",
        "scale_factor",
        "upscale_factor",
        "downscale_factor",
    )
)


def check(model: nn.Module, plan: Plan) -> None:
    """Checks that a plan is sound, and that a model has each tensor that it slices and each number that it sets.

    Args:
        model: The dense network.
        plan: The plan.

    Raises:
        PlanError: It is not, or the model does not have them.
    """
    if not isinstance(plan, Plan):
        raise PlanError(f"the plan is a {type(plan).__name__}: give one that structprune.plan or Plan.from_json made")
    plan.check()
    state, modules = tensors(model), dict(walk(model))
    for key, axes in plan.keep.items():
        if key not in state:
            raise PlanError(f"the plan slices {shown_key(key)}, which {type(model).__name__} does not have")
        shape = list(state[key].shape)
        if shape != plan.shapes[key]:
            raise PlanError(
                f"the plan slices {key} of shape {plan.shapes[key]}, but here its shape is {shape}: "
                "apply a plan to the dense model that it was made for"
            )
        owner = modules.get(key.rpartition(".")[0])
        blocks = [len(rows) for rows in axes.values() if isinstance(rows[0], list)]
        if blocks and isinstance(owner, _ConvNd) and blocks[0] != owner.groups:
            raise PlanError(f"the plan keeps channels of {key} in {blocks[0]} blocks, but it has {owner.groups} groups")
    for path, values in plan.attributes.items():
        for name, value in values.items():
            _check_attribute(model, modules.get(path), path, name, value)


def wrong_shape(stored: Mapping[str, Tensor], plan: Plan, where: str, every: bool = False) -> str | None:
    """Says what is wrong with tensors that should be those of the plan's slim network.

    Args:
        stored: Tensors by key.
        plan: The plan.
        where: Where they are, for the message.
        every: Whether none may be missing. Else some may, but not all, as weight norm and the like may have been
            removed since.

    Returns:
        The first thing that is wrong; None if nothing is.
    """
    missing = None
    for key, axes in plan.keep.items():
        shape = list(plan.shapes[key])
        for axis, kept in axes.items():
            shape[int(axis)] = len(kept[0]) if isinstance(kept[0], list) else len(kept)
        if key not in stored:
            missing = missing or key
        elif list(stored[key].shape) != shape:
            return f"{shown_key(key)} is {tuple(stored[key].shape)} in {where}, and the plan makes it {tuple(shape)}"
    if missing is not None and (every or not stored.keys() & plan.keep.keys()):
        return f"{shown_key(missing)} is absent in {where}, and the plan makes it: give the plan that it was made by"
    return None


def shown_key(key: str) -> str:
    """A file's key for a message: as it is if it is a short name."""
    return key if len(key) <= 200 and key.isprintable() else shown(key)


def _check_attribute(model: nn.Module, module: nn.Module | None, path: str, name: str, value: Any) -> None:
    """Raises PlanError unless the module holds this number, list of numbers or switch, and it does not grow."""
    where = shown_key(f"{path}.{name}".lstrip("."))
    parts = name.split(".")  # a number in a configuration has a path
    plain = all(part.isidentifier() and not part.startswith("__") for part in parts) and parts[0] not in _INTERNAL
    old = read(module, name) if module is not None and plain and _may_hold(module, parts) else None
    if old is None and (module is None or not plain or not hasattr(module, name)):
        raise PlanError(f"the plan sets {where}, which {type(model).__name__} does not have")
    fixed = type(module).__module__.startswith("torch.nn.") and (name in _NO_SIZES or isinstance(old, bool))
    if fixed or not _follows(old, value):
        raise PlanError(f"the plan sets {where} to {shown(value)}, and it is {shown(old)}: only sizes follow a plan")


def _may_hold(module: nn.Module, parts: list[str]) -> bool:
    """Whether all but the last part of a path lead to configurations, in which numbers may stand and be changed."""
    return not any(isinstance(read(module, ".".join(parts[:i])), NOT_CONFIGURATIONS) for i in range(1, len(parts)))


def _follows(old: Any, new: Any) -> bool:
    """Whether `new` may replace `old` in a slim network."""
    if isinstance(old, bool):
        return isinstance(new, bool)
    if isinstance(old, numbers.Integral):
        return type(new) is int and 0 <= new <= int(old)
    if isinstance(old, (list, tuple)):
        return (
            isinstance(new, list)
            and len(new) == len(old)
            and all(a == b or _follows(a, b) for a, b in zip(old, new, strict=True))
        )
    return False


def check_numbers(model: nn.Module, slim: nn.Module) -> None:
    """Raises PlanError if a layer of torch.nn has numbers that its tensors contradict, and had none in `model`."""
    dense = dict(walk(model))
    for path, module in walk(slim):
        wrong = next(_contradictions(module), None)
        if wrong is not None and path in dense and next(_contradictions(dense[path]), None) is None:
            raise PlanError(
                f"the plan leaves {path or 'the model'} with {wrong}: it was edited, or is for another model"
            )


def _contradictions(module: nn.Module) -> Iterator[str]:
    """For example `out_channels=16 and a weight of shape [8, 3, 3, 3]`."""
    if isinstance(module, (_ConvNd, nn.Linear)) and module._parameters.get("weight") is None:
        return  # its weight is made of others (weight norm), and the numbers are not its own
    for name, key, axis, factor in _numbers(module):
        tensor = module._parameters.get(key, module._buffers.get(key))
        if tensor is None:
            continue
        number = getattr(module, name)
        if axis >= tensor.dim() or number != tensor.shape[axis] * factor:
            yield f"{name}={number} and a {key} of shape {list(tensor.shape)}"


def _numbers(module: nn.Module) -> list[tuple[str, str, int, int]]:
    """(number, tensor, axis, factor): the number is the length of the tensor's axis, times the factor."""
    if isinstance(module, _ConvNd):
        turned = isinstance(module, _ConvTransposeNd)
        rows, columns = ("in_channels", "out_channels") if turned else ("out_channels", "in_channels")
        return [(rows, "weight", 0, 1), (columns, "weight", 1, module.groups), ("out_channels", "bias", 0, 1)]
    if isinstance(module, nn.Linear):
        return [("out_features", "weight", 0, 1), ("in_features", "weight", 1, 1), ("out_features", "bias", 0, 1)]
    if isinstance(module, _NormBase):
        return [("num_features", key, 0, 1) for key in ("weight", "bias", "running_mean", "running_var")]
    if isinstance(module, nn.GroupNorm):
        return [("num_channels", key, 0, 1) for key in ("weight", "bias")]
    if isinstance(module, nn.Embedding):
        return [("num_embeddings", "weight", 0, 1), ("embedding_dim", "weight", 1, 1)]
    return []
