"""Runs a network while it changes its ops: statistics over the channels left, one dtype throughout, dropout off.

The masked reference needs this beside zeros in its weights. It knows calls by number, op and module, as the plan names
them, and uses neither graph nor rules. What it must know of an op (which norms have weights that shrink with what is
left, which op takes its scale from a width) stands here once more, and is not taken from the op's record (`ops.record`)
on purpose: a mistake there would be made in the slim network and in what the gate compares it with, and so stay hidden.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..modules import walk
from ..ops import OpMode, op_name
from ..plan_schema import Statistic
from ..process_state import default_dtype

Statistics = dict[tuple[str, int], Statistic]
_COARSER = {
    torch.float64: {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64,
                    torch.complex64: torch.complex128, torch.complex32: torch.complex128},
    torch.float32: {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.complex32: torch.complex64},
}  # fmt: skip
_DROPOUT = frozenset(["dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"])
_SCALED_BY_WIDTH = "scaled_dot_product_attention"


class OtherPath(RuntimeError):
    """The model makes other calls than when it was traced, so that the plan's calls can't be identified."""


class Watched(nn.Module):
    """Runs `model` with some of its ops changed; its own code and modules stay.

    `statistics` are a plan's entries: each names the `call`th call of an op, and what is left on axes of its
    arguments; its statistic or its contraction is then taken over that alone. With `dtype`, everything coarser is
    converted to it, also where the model's own code converts (such a conversion would round, differently in the slim
    and the masked network, and hide behind it what differs). With `still`, dropout does nothing in training mode.
    Raises OtherPath where the calls are not those that were traced, or not the same from batch to batch.
    """

    def __init__(
        self,
        model: nn.Module,
        statistics: Statistics | None = None,
        dtype: torch.dtype | None = None,
        still: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.statistics, self.dtype, self.still = model, statistics or {}, dtype, still
        self.counted: dict[bool, Counter[str]] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mode = _Masking(self.model, self.statistics, self.dtype, self.still)
        with default_dtype(self.dtype), mode:
            result = self.model(*args, **kwargs)
        if self.statistics:
            self._check(mode)
        return result

    def _check(self, mode: _Masking) -> None:
        message = f"{mode.met} of the {len(self.statistics)} calls that take statistics over channels were made"
        if mode.met != len(self.statistics):
            raise OtherPath(f"{message}: the model does not take the same path as when it was traced")
        names = {op for op, _ in self.statistics}
        calls = Counter({name: count for name, count in mode.calls.items() if name in names})
        first = self.counted.setdefault(self.training, calls)
        for name in names:
            if calls[name] != first[name]:
                raise OtherPath(
                    f"{calls[name]} calls of {name}, and {first[name]} with the first batch: the model does not take "
                    "the same path at every batch, so the statistics over channels can't be told apart"
                )


class _Masking(OpMode):
    def __init__(self, model: nn.Module, statistics: Statistics, dtype: torch.dtype | None, still: bool) -> None:
        super().__init__()
        self.statistics, self.still = statistics, still
        self.finer = _COARSER.get(dtype, {}) if dtype is not None else {}
        self.default = torch.get_default_dtype()  # that of tensors which the code makes outside of the gate
        self.calls, self.met = Counter[str](), 0
        self.paths = {id(module): name for name, module in walk(model)} if statistics else {}
        self.stack = [""]

    def __enter__(self) -> Any:
        super().__enter__()
        if self.statistics:
            self._open.enter_context(self._hooks())
        return self

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        thread = threading.get_ident()  # the hooks are called for modules of all threads

        def enter(module: nn.Module, _: Any) -> None:
            if threading.get_ident() == thread:
                self.stack.append(self.paths.get(id(module), self.stack[-1]))

        def leave(*_: Any) -> None:
            if threading.get_ident() == thread:
                self.stack.pop()

        with ExitStack() as hooks:
            hooks.callback(nn.modules.module.register_module_forward_pre_hook(enter).remove)
            hooks.callback(nn.modules.module.register_module_forward_hook(leave, always_call=True).remove)
            yield

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = op_name(op)
        if self.finer:
            if name == "lift_fresh":
                args = self._as_outside(args)
            args, kwargs = self._in_dtype(op, args, kwargs)
        if self.still:
            if name in _DROPOUT:
                return (args[0], torch.ones_like(args[0], dtype=torch.bool)) if name == "native_dropout" else args[0]
            args, kwargs = _without_dropout(op, args, kwargs)
        entry = self.statistics.get((name, self.calls[name]))
        self.calls[name] += 1
        if entry is None:
            return op(*args, **kwargs)
        if entry.get("module") not in (None, self.stack[-1]):
            raise OtherPath(
                f"call {self.calls[name] - 1} of {name} is made by {self.stack[-1] or 'forward'}, and was by "
                f"{entry['module'] or 'forward'} when the model was traced"
            )
        self.met += 1
        return _over_what_is_left(op, name, entry, args, kwargs)

    def _as_outside(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Numbers of which the code makes a tensor, `torch.tensor([0.1])`, as they are without the finer default dtype:
        the graph form holds them so."""
        call: tuple[Any, Any] = self.torch_call.arguments or ((), None)
        values, options = call
        listed = bool(values) and isinstance(values[0], (float, list, tuple))  # arrays bring a dtype of their own
        by_default = listed and args[0].is_floating_point() and not (options or {}).get("dtype")
        return (args[0].to(self.default),) if by_default else args

    def _in_dtype(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        mutable = op._schema.is_mutable

        def finer(value: Any) -> Any:
            if isinstance(value, torch.dtype):
                return self.finer.get(value, value)
            if isinstance(value, Tensor) and value.dtype in self.finer and not mutable:
                return value.to(self.finer[value.dtype])
            return value

        return pytree.tree_map(finer, (args, kwargs))


def _without_dropout(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The same arguments, with a dropout of 0 for an op that drops something itself (attention, recurrent layers)."""
    names = [argument.name for argument in op._schema.arguments]
    for name in ("dropout_p", "dropout"):
        if name in kwargs:
            kwargs = {**kwargs, name: 0.0}
        elif name in names and names.index(name) < len(args):
            place = names.index(name)
            args = (*args[:place], 0.0, *args[place + 1 :])
    return args, kwargs


def _over_what_is_left(
    op: Any, name: str, entry: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Runs the op on the channels that are left. Returns its result with these in their old places, if it has them."""
    inner, tensors = list(args), list(args[1] if name == "einsum" else args)
    for place, cut in entry["keep"].items():
        tensors[int(place)] = _selected(tensors[int(place)], cut)
    if name == "einsum":
        inner[1] = tensors
    else:
        inner = tensors
    if name == _SCALED_BY_WIDTH and kwargs.get("scale") is None:
        kwargs = {**kwargs, "scale": args[0].shape[-1] ** -0.5}
    if entry["reduces"]:
        return op(*inner, **kwargs)
    whole, kept = args[0], {int(d): indices for d, indices in entry["keep"]["0"].items()}
    if name == "group_norm" and len({len(b) for b in _blocks(kept[1], whole.shape[1], args[1])}) > 1:
        raise RuntimeError(f"{entry['module']}: the groups of a GroupNorm keep unequal numbers of channels")
    inner[1:] = [_narrow(a, whole.dim(), kept, name) for a in inner[1:]]
    result = op(*inner, **{k: _narrow(v, whole.dim(), kept, name) for k, v in kwargs.items()})
    if isinstance(result, Tensor):
        return _widen(result, whole, kept)
    return type(result)(
        _widen(m, whole, kept) if isinstance(m, Tensor) and m.dim() == whole.dim() else m for m in result
    )


def _blocks(kept: list[int], width: int, groups: int) -> list[list[int]]:
    return [[i for i in kept if i * groups // width == block] for block in range(groups)]


def _selected(tensor: Tensor, cut: Mapping[str, list[int]]) -> Tensor:
    for d, indices in cut.items():
        tensor = tensor.index_select(int(d), torch.tensor(indices, device=tensor.device))
    return tensor


def _narrow(value: Any, rank: int, keep: Mapping[int, list[int]], op: str) -> Any:
    """An argument of a norm for the channels left: their weights, or the shape that is normalised."""
    if op in ("layer_norm", "rms_norm", "_fused_rms_norm"):
        if isinstance(value, Tensor):
            return _selected(value, {str(d - rank + value.dim()): indices for d, indices in keep.items()})
        if isinstance(value, (list, tuple)):
            return [len(keep[d]) if (d := rank - len(value) + i) in keep else n for i, n in enumerate(value)]
    if op == "group_norm" and isinstance(value, Tensor):
        return _selected(value, {"0": keep[1]})
    return value


def _widen(result: Tensor, whole: Tensor, keep: Mapping[int, list[int]]) -> Tensor:
    """The result with the channels that are left in their old places, and zeros between them."""
    for d, indices in keep.items():
        if result.shape[d] != len(indices):
            continue  # the axis ends in this output
        full = result.new_zeros([*result.shape[:d], whole.shape[d], *result.shape[d + 1 :]])
        result = full.index_copy(d, torch.tensor(indices, device=result.device), result)
    return result
