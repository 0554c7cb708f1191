"""Runs copies of a network for a comparison: with the same seeds, in one dtype, on batches that it takes, or rounded
differently."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from ..errors import OtherSizeError
from ..modules import evaluating, plain_transformers, replace_tensors, skeleton_copy, tensors
from ..ops import Inputs, outputs
from ..process_state import seeded
from .comparison import Comparison, Noise
from .masking import Watched

SAMPLES = 3  # of rounding: for one element alone, that all are a hundredth of the usual has a chance of 1e-6
SAMPLES_OF_HALF = 16  # where a value that is moved a little mostly rounds to itself
AS_ROUNDED = 4.0  # times what the dtype makes of the masked network's own outputs
_FINER = {torch.float64: [], torch.float32: [torch.float64]}
_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


def call(model: nn.Module, inputs: Inputs, seed: int = 0) -> list[Tensor]:
    """The output tensors of one forward pass."""
    with seeded(seed), plain_transformers():
        return outputs(inputs.call(model))


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def dtype_of(model: nn.Module, inputs: Inputs) -> torch.dtype:
    """The coarsest floating-point dtype of a network and its inputs."""
    values = (*tensors(model).values(), *(x for x in inputs.flat() if isinstance(x, Tensor)))
    dtypes = {x.dtype.to_real() for x in values if x.is_floating_point() or x.is_complex()}
    known = [dtype for dtype in dtypes if dtype.itemsize > 1]  # 8 bits are for storage
    return max(known, key=lambda dtype: torch.finfo(dtype).eps) if known else torch.get_default_dtype()


def levels(native: torch.dtype) -> list[torch.dtype]:
    """The dtypes that a network of dtype `native` can be compared in, from the finest."""
    return list(dict.fromkeys([torch.float64, torch.float32, native] if native != torch.float64 else [native]))


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The same inputs, with everything coarser than `dtype` in `dtype`."""
    return inputs.map(lambda x: _finer(x, dtype))


def in_dtype(model: nn.Module, dtype: torch.dtype, native: torch.dtype, still: bool = False) -> nn.Module:
    """A copy that computes in `dtype` throughout; a plain copy if that is its own dtype."""
    copy = skeleton_copy(model)
    if dtype == native and not still:
        return copy
    replace_tensors(copy, {key: _finer(tensor.detach(), dtype) for key, tensor in tensors(model).items()})
    finer = None if dtype == native and dtype != torch.float64 else dtype
    if isinstance(copy, Watched):
        copy.dtype, copy.still = finer, still
        return copy
    return Watched(copy, dtype=finer, still=still)


def _finer(x: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_complex():
        finer = _COMPLEX.get(dtype, x.dtype)
        return x.to(finer) if finer.itemsize > x.dtype.itemsize else x
    return x.to(dtype) if x.is_floating_point() and x.dtype.itemsize < dtype.itemsize else x


class ReferenceFails(Exception):
    """The reference does not run, which is not a fault of the network that is compared with it."""


def compare(
    comparison: Comparison,
    reference: nn.Module,
    other: nn.Module,
    batches: list[Inputs],
    dense: nn.Module | None = None,
    same_dtypes: bool = False,
) -> None:
    """Compares two networks of the same dtype, batch by batch.

    `dense` shows whether NaN is the network's own; `same_dtypes` says whether outputs must have the same dtypes. Raises
    ReferenceFails if the reference does not run.
    """
    rounded = reference
    reference, other = skeleton_copy(reference), skeleton_copy(other)  # some models write to their buffers
    with evaluating(reference), evaluating(other):
        for inputs in batches:
            try:
                expected = call(reference, inputs)
            except Exception as error:  # whatever the user's forward raises
                raise ReferenceFails(f"at batch {size_of(inputs)}: {first_line(error)}") from error
            noise = noise_of(rounded, inputs, expected)
            own = functools.cache(functools.partial(_evaluated, dense, inputs)) if dense is not None else None
            results = call(other, inputs)
            comparison.add(expected, results, size_of(inputs), noise, nan=own)
            if same_dtypes:
                _compare_dtypes(comparison, expected, results)


def _compare_dtypes(comparison: Comparison, expected: list[Tensor], results: list[Tensor]) -> None:
    kinds = [[str(x.dtype).removeprefix("torch.") for x in tensors] for tensors in (expected, results)]
    if len(expected) == len(results) and kinds[0] != kinds[1]:
        own, theirs = (", ".join(each) for each in kinds)
        comparison.fail(f"outputs are {theirs}, and the dense network's {own}", broken=True)


def _evaluated(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    model = skeleton_copy(model)
    with evaluating(model):
        return call(model, inputs)


def attempt(model: nn.Module, inputs: Inputs) -> list[Tensor] | None:
    """The outputs in evaluation mode; None if the network does not run, as it may be written for one dtype, or for
    weights of another kind."""
    try:
        return _evaluated(model, inputs)
    except Exception:  # whatever the user's forward raises
        return None


def compare_finest(
    comparison: Comparison,
    reference: nn.Module,
    other: nn.Module,
    batches: list[Inputs],
    *,
    order: Callable[[torch.dtype], list[torch.dtype]] = levels,
    dense: nn.Module | None = None,
) -> None:
    """Compares two networks in the finest dtype that the first one runs in, at the tolerance of that dtype.

    Args:
        comparison: Gets what comes of it.
        reference: The network that is right.
        other: The network that is held against it.
        batches: Inputs.
        order: Gives the dtypes to try, in turn, for the network's own dtype; by default float64 first.
        dense: Shows whether NaN is the dense network's own.
    """
    native = dtype_of(reference, batches[0])
    dtypes = order(native)
    for dtype in dtypes:
        first, now = (str(d).removeprefix("torch.") for d in (dtypes[0], dtype))
        if dtype != dtypes[0]:
            comparison.hold_to(dtype)
        inputs = [cast(x, dtype) for x in batches]
        own = in_dtype(dense, dtype, native) if dense is not None else None
        try:
            both = in_dtype(reference, dtype, native), in_dtype(other, dtype, native)
            compare(
                comparison, *both, inputs, own, same_dtypes=dtype == native
            )  # a copy's constants may be cast or not
        except ReferenceFails as error:
            reason = str(error)
            if comparison.batches:  # it does run, but not with every batch
                break
            continue
        if dtype != dtypes[0]:
            comparison.note(f"compared in {now}: the dense network does not run in {first}")
        return
    comparison.skip(f"the dense network, masked, does not run {reason}")


def rounding_of(model: nn.Module, batches: list[Inputs]) -> dict[str, float]:
    """The largest relative difference of each output between a network's own dtype and float64.

    It is empty if the network does not run in float64. The noise of moved weights and inputs is too small for a network
    that rounds coarsely inside: what is added to a large number and subtracted again loses more digits than an eps of a
    weight can show.
    """
    native = dtype_of(model, batches[0])
    rounded, finer = Comparison.of(native), in_dtype(model, torch.float64, native)
    for inputs in batches:
        results, exact = attempt(model, inputs), attempt(finer, cast(inputs, torch.float64))
        if results is None or exact is None:
            return {}
        rounded.add(results, exact, size_of(inputs))
    return rounded.worst if rounded.only_numbers else {}


def excuse_rounding(comparison: Comparison, reference: nn.Module, other: nn.Module, batches: list[Inputs]) -> None:
    """Excuses a difference that is no larger, in its place, than the dtype's rounding of the reference's own outputs.

    Only for networks whose float64 copies were compared and are equal.
    """
    native = dtype_of(reference, batches[0])
    if not (comparison.failed and comparison.only_numbers) or native == torch.float64:
        return
    between, finer = Comparison.of(native), in_dtype(reference, torch.float64, native)
    between.room = AS_ROUNDED
    for inputs in batches:
        results, exact = attempt(reference, inputs), attempt(finer, cast(inputs, torch.float64))
        if results is None or exact is None or [x.shape for x in results] != [x.shape for x in exact]:
            return
        rounded = [distance(a, b) for a, b in zip(results, exact, strict=True)]
        between.add(results, _evaluated(other, inputs), size_of(inputs), functools.partial(list, rounded))
    name = str(native).removeprefix("torch.")
    message = f"{comparison.max_rel:.2g} between masked and slim"
    if between.passed:
        comparison.excuse(
            f"{name} rounds too coarsely for this network: {message}, as masked in {name} does from float64"
        )
    else:
        comparison.detail += f" ({message}, more than between masked in {name} and in float64)"


def noise_of(model: nn.Module, inputs: Inputs, expected: list[Tensor]) -> Noise:
    """Makes a function that measures, for each output, how far its elements move when rounding differs.

    Weights and inputs are moved by up to four of their own eps, several times, and the largest change counts:
    that is as much as rounding every weight and input again would do, with all that follows.
    """

    @functools.cache
    def measure() -> list[Tensor]:
        moved = [torch.zeros_like(x, dtype=torch.float64, device="cpu") for x in expected]
        for sample in range(samples_of(dtype_of(model, inputs))):
            generator = torch.Generator().manual_seed(sample)
            copy = skeleton_copy(model)
            replace_tensors(copy, {key: nudged(t.detach(), generator) for key, t in tensors(model).items()})
            results = attempt(copy, inputs.map(lambda x, g=generator: nudged(x, g)))
            if results is None or [x.shape for x in results] != [x.shape for x in expected]:
                continue
            moved = [torch.maximum(m, distance(a, b)) for m, a, b in zip(moved, expected, results, strict=True)]
        return moved

    return measure


def samples_of(dtype: torch.dtype) -> int:
    """How often rounding is measured in `dtype`."""
    return SAMPLES if torch.finfo(dtype).bits >= 32 else SAMPLES_OF_HALF


def nudged(x: Tensor, generator: torch.Generator) -> Tensor:
    """Moves each number up or down by at most four times the eps of its dtype."""
    if not x.is_floating_point() or x.dtype.itemsize == 1 or x.is_meta:
        return x
    moves = torch.rand(x.shape, generator=generator, dtype=torch.float32).sub_(0.5).mul_(8 * torch.finfo(x.dtype).eps)
    return x + x * moves.to(x)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| in float64; 1 or 0 for integers; 0 where it is not finite."""
    a, b = a.detach().cpu(), b.detach().cpu()
    if not (a.is_floating_point() or a.is_complex()):
        return (a != b).double()
    gap = (a.to(torch.complex128) - b.to(torch.complex128)).abs() if a.is_complex() else (a.double() - b.double()).abs()
    return torch.where(torch.isfinite(gap), gap, 0)


def draws(model: nn.Module, inputs: Inputs) -> str:
    """A message about a network that gives other outputs the second time; empty if it does not."""
    first, second = skeleton_copy(model), skeleton_copy(model)
    with evaluating(first), evaluating(second):
        try:
            pairs = list(zip(call(first, inputs, seed=0), call(second, inputs, seed=1), strict=True))
        except Exception:  # a network that does not run is said elsewhere
            return ""
    moved = [float(distance(a, b).max()) if a.numel() else 0.0 for a, b in pairs if a.shape == b.shape]
    if len(moved) == len(pairs) and all(m <= _of_order(a) for m, (a, _) in zip(moved, pairs, strict=True)):
        return ""
    return (
        "the network draws random numbers in evaluation mode, or is not deterministic: run twice on the same inputs, "
        f"its outputs differ by {max(moved, default=0.0):.3g}"
    )


def _of_order(x: Tensor) -> float:
    """How far outputs may differ as a GPU sums in another order; 0 on a CPU."""
    if x.device.type == "cpu" or not (x.is_floating_point() or x.is_complex()):
        return 0.0
    return 16 * torch.finfo(x.dtype).eps * float(torch.where(torch.isfinite(x), x, 0).abs().max())


def batches_of(model: nn.Module, inputs: Inputs) -> list[Inputs]:
    """Makes the inputs at batch 1 and at another size: as they are, or one sample and a shifted copy of it.

    Args:
        model: The dense network.
        inputs: Example inputs.

    Returns:
        Those of the two that the dense network runs on; if it runs on neither, `inputs` alone.
    """
    size = size_of(inputs)
    if size > 1:
        candidates = [inputs.map(lambda x: x[:1] if x.dim() and x.shape[0] == size else x), inputs]
    else:
        candidates = [inputs, inputs.map(lambda x: torch.cat([x, x.roll(1, -1)]) if x.dim() else x)]
    return [candidate for candidate in candidates if attempt(model, candidate) is not None] or [inputs]


def refusals(slim: nn.Module, batches: list[Inputs], example: Inputs) -> dict[int, str]:
    """The messages of a slim network about batch sizes that it refuses, by size; it may not refuse that of `example`.

    A graph form is tied to the batch size of its example if the network's code reads values at some batch sizes only.
    """
    refused: dict[int, str] = {}
    if not isinstance(slim, fx.GraphModule):
        return refused
    slim = skeleton_copy(slim)
    with evaluating(slim):
        for inputs in batches:
            try:
                call(slim, inputs)
            except OtherSizeError as refusal:
                refused[size_of(inputs)] = str(refusal)
            except Exception:  # whatever else is wrong is for the comparisons to say
                continue
    refused.pop(size_of(example), None)
    return refused


def size_of(inputs: Inputs) -> int:
    return next((int(x.shape[0]) for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 1)
