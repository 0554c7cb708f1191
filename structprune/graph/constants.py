"""What stands where channels were removed, in the dense network whose removed slices of parameters are zero.

Removing channels equals masking them with zero only if what they become on the way adds nothing to what sums over
them: relu(0) is 0, but sigmoid(0) is a half and elu(0) + 1 is one. So each `Value` says of each axis which number
stands at its removed positions, where that can be told. Elementwise ops are run on these numbers; of other ops, the
table here says what they keep. An op that is not in it makes what is not known: then a contraction is no `exact` one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..ops.provenance import Number
from .flow import Value
from .rules.pointwise import BINARY, DROPOUT, UNARY

Constants = tuple[float | None, ...]
Told = Callable[[str, Sequence[Any], Value, int], Constants]  # op, arguments, one result and its number among them


def with_constants(name: str, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any], made: Any) -> Any:
    """What a rule `made` (a Value or a list of them), with what stands at the removed positions of its axes."""
    if isinstance(made, list):
        return [
            _told(name, node, args, kwargs, part, i) if isinstance(part, Value) else part for i, part in enumerate(made)
        ]
    return _told(name, node, args, kwargs, made, 0)


def _told(name: str, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any], made: Value, place: int) -> Value:
    if made.is_fixed or made.key is not None:
        return made
    if name in _ELEMENTWISE and (name not in ("max", "min") or isinstance(args[-1], Value)):
        masked = tuple(
            None if axis is None else _elementwise(name, node, args, kwargs, d - len(made.shape))
            for d, axis in enumerate(made.axes)
        )
    elif name in _TABLE:
        masked = _TABLE[name](name, args, made, place)
    else:
        return made
    return dataclasses.replace(made, masked=masked)


# --- elementwise ------------------------------------------------------------------------------------------


def _elementwise(name: str, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any], dim: int) -> float | None:
    """What the op makes of the numbers at the removed positions of axis `dim`, counted from the last, -1."""
    numbers = [_number(x, dim) if isinstance(x, Value) else x for x in args]
    tensors = [(x, n) for x, n in zip(args, numbers, strict=True) if isinstance(x, Value)]
    known = [n for _, n in tensors if n is not None]
    if name in _RANDOM:
        return 0.0 if known == [0.0] and len(tensors) == 1 and not name.endswith("alpha_dropout") else None
    if len(known) == len(tensors) and not any(isinstance(x, Value) for x in kwargs.values()):
        return _run(node.target, tuple(args), tuple(numbers), kwargs)
    if name in ("mul", "multiply") and 0.0 in known and all(map(math.isfinite, known)):
        return 0.0
    if name in ("div", "divide", "true_divide") and numbers[0] == 0.0 and not _carries(args[1], dim):
        return 0.0
    if name == "where" and len(numbers) == 3 and numbers[1] == numbers[2]:
        return _plain(numbers[1])
    if name == "masked_fill" and numbers[0] is not None and numbers[0] == _plain(numbers[2]):
        return _plain(numbers[0])
    if name == "copy":
        return _plain(numbers[1])
    return None


def _number(x: Value, dim: int) -> float | None:
    return x.at(dim) if _carries(x, dim) else None


def _carries(x: Any, dim: int) -> bool:
    return isinstance(x, Value) and len(x.shape) >= -dim and x.axes[dim] is not None


def _plain(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _run(target: Any, args: tuple[Any, ...], numbers: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The op on scalars, each a tensor or number as in the call; None where it does not take them."""
    places = tuple(isinstance(x, Value) for x in args)
    options = {k: v for k, v in kwargs.items() if k not in ("device", "layout", "memory_format", "pin_memory")}
    key = (target, places, repr(numbers), repr(options))
    if key not in _RESULTS:
        given = [
            torch.tensor(n, dtype=torch.float64) if tensor else int(n) if isinstance(n, Number) else n
            for n, tensor in zip(numbers, places, strict=True)
        ]
        try:
            with torch.no_grad():
                result = target(*given, **options)
            _RESULTS[key] = float(result) if isinstance(result, Tensor) and result.numel() == 1 else None
        except (RuntimeError, TypeError, NotImplementedError, ValueError):  # wants booleans, or a device
            _RESULTS[key] = None
    return _RESULTS[key]


_RESULTS: dict[Any, float | None] = {}
_RANDOM = frozenset(
    ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "bernoulli", "rrelu", "rrelu_with_noise")
)
_ELEMENTWISE = frozenset((*f"{UNARY} {BINARY} max min lift lift_fresh detach".split(), *DROPOUT))


# --- moves, sums, contractions ----------------------------------------------------------------------------


def _tensors(args: Sequence[Any]) -> list[Value]:
    found = []
    for x in args:
        found += [x] if isinstance(x, Value) else _tensors(x) if isinstance(x, (list, tuple)) else []
    return found


def _moved(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    """Each position is one of the tensors' own: by the axis that it came from, else by what all axes agree on."""
    tensors = _tensors(args)
    live = {x.at(d) for x in tensors for d, axis in enumerate(x.axes) if axis is not None}
    common = live.pop() if len(live) == 1 else None
    result = []
    for axis in made.axes:
        own = {x.at(d) for x in tensors for d, a in enumerate(x.axes) if axis is not None and a is axis}
        result.append(own.pop() if len(own) == 1 and len(tensors) == 1 else common)
    return tuple(result)


def _zeros_stay(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    """Sums, means and the like of zeros, along other axes, are zero."""
    if place and name in _SECOND_IS_A_PLACE:
        return (None,) * len(made.axes)
    return tuple(map(_summed, _moved(name, args, made, place)))


def _summed(*values: float | None) -> float | None:
    """What sums of products have in common: a zero factor makes them zero, an infinite one makes them nothing."""
    known = [value for value in values if value is not None]
    if not all(map(math.isfinite, known)):
        return math.nan
    return 0.0 if 0.0 in known else None


def _expanded(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    x: Value = args[0]
    new = len(made.shape) - len(x.shape)
    same = [d >= new and made.axes[d] is x.axes[d - new] for d in range(len(made.shape))]
    return tuple(x.at(d - new) if same[d] else None for d in range(len(made.shape)))


def _padded(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    x: Value = args[0]
    numbers = [v for v in args[2:] if isinstance(v, (int, float))]
    fill = float(numbers[0]) if numbers else 0.0
    if "constant" not in args[2:3] and name == "pad" and len(args) > 2:
        return x.masked  # repeats what is there
    return tuple(value if value == fill or not name.endswith(("pad", "nd")) else None for value in x.masked)


def _convolved(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    x, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else None
    channel = len(x.shape) - len(weight.shape) + 1
    rows = [weight.at(1), weight.at(0)] if "transpose" in name else [weight.at(0)]
    if len(rows) == 2 and weight.shape[0] == x.shape[channel] and weight.shape[1] == made.shape[channel]:
        rows = rows[:1]  # in one group
    return _affine(made, x, channel, rows, bias)


def _affine(made: Value, x: Value, channel: int, rows: list[float | None], bias: Any) -> Constants:
    """Zero where filters and biases are; along another axis where the input is, without a bias."""
    biased = isinstance(bias, Value)
    filters = [_summed(row) for row in rows]
    finite = not any(row is not None and math.isnan(row) for row in filters)
    unknown = None in filters or (biased and bias.at(0) != 0.0)
    result: list[float | None] = []
    for d in range(len(made.axes)):
        if d == channel % len(made.axes):
            result.append(math.nan if not finite else None if unknown else 0.0)
        else:
            sums = _summed(x.at(d))
            result.append(None if biased and sums == 0.0 else sums)
    return tuple(result)


def _linear(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    return _affine(made, args[0], -1, [args[1].at(0)], args[2] if len(args) > 2 else None)


def _product(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    a, b = args[0], args[1]
    rank = len(made.shape)
    ends = [(a, -2)] * (len(a.shape) > 1) + [(b, -1)] * (len(b.shape) > 1)
    result: list[float | None] = []
    for d in range(-rank, -len(ends)):
        at = d + len(ends) - 2  # among the axes of either factor
        result.append(_summed(*(x.at(at) for x in (a, b) if len(x.shape) >= -at)))
    return (*result, *(_summed(x.at(dim)) for x, dim in ends))


def _einsum(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    inputs, arrow, result = args[0].replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        result = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    held: dict[str, list[float | None]] = {}
    for term, x in zip(terms, args[1], strict=True):
        for d, letter in enumerate(term):
            held.setdefault(letter, []).append(x.at(d))
    return tuple(_summed(*held[letter]) for letter in result)


def _attended(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    values: Value = args[2]
    return tuple(None if d == len(made.axes) - 2 else _summed(values.at(d)) for d in range(len(made.axes)))


def _normed(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    """LayerNorm and RMSNorm: zero weights make zeros; along an axis that is not normed, zeros stay without a bias."""
    x, inner, affine = args[0], len(args[1]), [a for a in args[2:] if isinstance(a, Value)]
    first = len(x.shape) - inner
    result: list[float | None] = []
    for d in range(len(x.shape)):
        sums = _summed(x.at(d))
        if d < first and (len(affine) < 2 or sums != 0.0):
            result.append(sums)
        elif d < first or not affine or any(a.at(d - first) != 0.0 for a in affine):
            result.append(None)
        else:
            result.append(0.0)
    return tuple(result)


def _scaled(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    """BatchNorm and its like, each channel apart: zero by its own weights, or where mean and input are zero."""
    x: Value = args[0]
    at = 2 if name == "group_norm" else 1
    affine = [a for a in args[at : at + 2] if isinstance(a, Value)]
    means = [a for a in args[3:4] if isinstance(a, Value)] if name != "group_norm" else []
    if affine:
        channel = all(a.at(0) == 0.0 for a in affine)
    else:
        apart = name != "group_norm" or args[1] == x.shape[1]
        channel = apart and x.at(1) == 0.0 and all(m.at(0) == 0.0 for m in means)
    if x.at(1) is not None and not math.isfinite(x.at(1) or 0.0):
        return (None, math.nan, *(None,) * (len(x.axes) - 2))
    lead = 0.0 if x.at(0) == 0.0 and name in ("group_norm", "instance_norm") and len(affine) < 2 and not means else None
    return (lead, 0.0 if channel else None, *(None,) * (len(x.axes) - 2))


def _embedded(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    return tuple(args[0].at(1) if d == len(made.axes) - 1 else None for d in range(len(made.axes)))


def _zeros_of_first(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    return _zeros_stay(name, args[:1], made, place)


def _gated(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    return tuple(map(_summed, args[0].masked))


def _filled(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    fill = {"zeros": 0.0, "ones": 1.0}.get(name.removesuffix("_like").removeprefix("new_"))
    if "full" in name.split("_"):
        fill = _plain(args[2 if name == "new_full" else 1])
    return (fill,) * len(made.axes)


def _first(name: str, args: Sequence[Any], made: Value, place: int) -> Constants:
    return _moved(name, args[:1], made, place)


_PLACES = (
    "max min median nanmedian mode kthvalue sort topk cummax cummin max_pool2d_with_indices adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d"
)
_SECOND_IS_A_PLACE = frozenset(_PLACES.split())
_MOVES = (
    "flatten view reshape _unsafe_view unflatten squeeze unsqueeze _reshape_alias reshape_as view_as ravel permute "
    "movedim moveaxis view_as_complex view_as_real transpose swapaxes swapdims t numpy_T mT adjoint matrix_H stack "
    "repeat tile repeat_interleave cat concat concatenate hstack vstack dstack column_stack chunk split "
    "split_with_sizes unsafe_chunk unsafe_split tensor_split unsafe_split_with_sizes slice narrow select unbind "
    "pixel_shuffle pixel_unshuffle channel_shuffle unfold flip roll rot90 fliplr flipud hsplit vsplit dsplit"
)
_KEEP_ZEROS = (
    "mean sum amax amin var std linalg_vector_norm norm max min var_mean std_mean prod count_nonzero nansum nanmean "
    "linalg_norm median nanmedian mode kthvalue all any max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d "
    "avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d max_pool2d_with_indices upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d lp_pool2d "
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
    "fft_irfftn cumsum cumprod cummax cummin sort topk msort tril triu diagonal im2col col2im index_add index_copy"
)
_TABLE: dict[str, Told] = {
    **dict.fromkeys(_MOVES.split(), _moved),
    **dict.fromkeys(_KEEP_ZEROS.split(), _zeros_stay),
    **dict.fromkeys(("index", "index_select", "gather", "to", "type_as"), _first),
    **dict.fromkeys(
        ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "max_unpool2d", "max_unpool3d"), _zeros_of_first
    ),
    **dict.fromkeys(("expand", "broadcast_to", "expand_as"), _expanded),
    **dict.fromkeys(("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d"), _padded),
    **{f"conv{kind}{n}d": _convolved for kind in ("", "_transpose") for n in (1, 2, 3)},
    **dict.fromkeys(("matmul", "bmm", "mm", "mv"), _product),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normed),
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm"), _scaled),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like"), _filled),
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"), _filled),
    "linear": _linear,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attended,
    "embedding": _embedded,
    **dict.fromkeys(("glu", "prelu", "_prelu_kernel"), _gated),
}
