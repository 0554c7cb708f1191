"""Compares the slim network with its ONNX file in onnxruntime, and the dense network with its own file.

A difference that the dense network shows too is the runtime's: it is noted, and not a failure of the cut. But a file
that computes something else (an op that the exporter writes wrongly) shows in both too. So what the dense network shows
in an output excuses only a small difference there. A large one that is no more than the runtime's own noise on the slim
file proves nothing, and counts as not compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf, NoSuchFile
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from torch import Tensor, nn

from ..errors import ModelError
from ..export import export_onnx
from ..modules import evaluating, replace_tensors, skeleton_copy, tensors
from ..ops import Inputs
from .comparison import Comparison, own_scale, wide
from .running import (
    attempt,
    call,
    distance,
    dtype_of,
    first_line,
    noise_of,
    nudged,
    rounding_of,
    samples_of,
    size_of,
)

AS_DENSE = 4.0  # times what the dense network shows
DIGITS = 16.0  # times eps, of one at most: what is lost of values next to nothing, as onnxruntime's sigmoid loses it
SMALL = 1e-2  # relative: what no wrong file has been seen to stay below, and precision to reach seldom


def compare_onnx(
    comparison: Comparison,
    model: nn.Module,
    slim: nn.Module,
    batches: list[Inputs],
    file: Path | None,
    random: bool = False,
) -> None:
    """Compares `slim` with its ONNX file, which is written to a temporary folder if none is given.

    What differs is looked for in the dense network too, unless that is `random`.
    No float64 stands behind this comparison, so noise may excuse no more than the tolerance of the largest output.
    """
    comparison.capped = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            file = file or export_onnx(slim, batches[0], folder / "slim.onnx")
            refused = _compare(comparison, slim, _Session(file), batches)
            if refused:
                _refused(comparison, model, batches, folder, refused)
        except Exception as error:  # a file that is wrong may fail in any way
            _without_kernel(comparison, model, slim, batches, error)
        if comparison.failed and comparison.only_numbers and not random:
            _beside_dense(comparison, model, slim, batches, folder, file)
        half = torch.finfo(dtype_of(slim, batches[0])).bits < 32
        if comparison.failed and comparison.only_numbers and not random and half and file is not None:
            _rounded(comparison, model, slim, batches, file)


class _Session:
    """An ONNX file in onnxruntime on the CPU."""

    def __init__(self, file: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.names = [entry.name for entry in self.session.get_inputs()]

    def run(self, model: nn.Module, inputs: Inputs) -> list[Tensor]:
        arguments = dict(zip(inputs.names(model), inputs.flat(), strict=True))
        feed = {name: arguments[name].detach().cpu().numpy() for name in self.names}
        return [torch.from_numpy(np.asarray(array)) for array in self.session.run(None, feed)]


def _compare(
    comparison: Comparison, network: nn.Module, session: _Session, batches: Sequence[Inputs]
) -> dict[int, Exception]:
    """Compares batch by batch. Returns, by size, why the file refuses a batch; raises if it refuses all."""
    refused: dict[int, Exception] = {}
    for inputs in batches:
        try:
            results = session.run(network, inputs)
        except Exception as error:  # onnxruntime's own classes, and numpy's
            refused[size_of(inputs)] = error
            continue
        expected = _fresh(network, inputs)
        comparison.add(expected, results, size_of(inputs), noise_of(network, inputs, expected))
    if len(refused) == len(batches):
        raise next(iter(refused.values()))
    return refused


def _refused(
    comparison: Comparison, model: nn.Module, batches: list[Inputs], folder: Path, refused: dict[int, Exception]
) -> None:
    """Judges a file that takes only one batch size: not a fault of the cut if the dense network's does the same."""
    accepted = next(inputs for inputs in batches if size_of(inputs) not in refused)
    session = _Session(export_onnx(model, accepted, folder / "dense.onnx"))
    for inputs in batches:
        batch = size_of(inputs)
        if batch not in refused:
            continue
        reason = first_line(refused[batch])
        try:
            session.run(model, inputs)
        except Exception:  # as above
            comparison.leave_out(
                f"batch {batch} not compared: the ONNX file takes no batch of {batch}, nor does the dense network's "
                f"({reason[:160]})"
            )
        else:
            comparison.fail(f"at batch {batch}: {reason}")


def _without_kernel(
    comparison: Comparison, model: nn.Module, slim: nn.Module, batches: list[Inputs], error: Exception
) -> None:
    """Compares a float32 copy if a file can't be written or run in the network's dtype."""
    native = dtype_of(slim, batches[0])
    if _is_complex(slim, batches[0]):
        comparison.skip(f"ONNX has no complex numbers, and this network has: {first_line(error)[:160]}")
        return
    if native == torch.float32:
        if _lacks_kernel(error):
            comparison.skip(f"onnxruntime has no kernel for it: {first_line(error)}")
        else:
            comparison.fail(first_line(error), broken=True)
        return
    if isinstance(
        error, (KeyError, NoSuchFile, InvalidProtobuf)
    ):  # no matter of kernels: it is no file of this network
        comparison.fail(first_line(error), broken=True)
        return
    name = str(native).removeprefix("torch.")
    reason = f"onnxruntime runs no such network in {name} ({first_line(error)[:160]})"
    own = _of_float32(model, slim, batches)
    if own.failed:
        comparison.fail(f"in a float32 copy, as {reason}: {own.detail}")
        comparison.max_abs, comparison.max_rel, comparison.tolerance = own.max_abs, own.max_rel, own.tolerance
    elif own.passed:
        comparison.skip(f"{reason}; a float32 copy equals its file to {own.max_rel:.1e}")
    else:
        comparison.skip(f"{reason}, nor could a float32 copy be compared: {own.detail[:160]}")


def _of_float32(model: nn.Module, slim: nn.Module, batches: list[Inputs]) -> Comparison:
    """Makes the same comparison of float32 copies."""
    own = Comparison.of(torch.float32)
    inputs = [x.map(lambda t: t.float() if t.is_floating_point() else t) for x in batches]
    compare_onnx(own, _float32(model), _float32(slim), inputs, None)
    return own


def _float32(model: nn.Module) -> nn.Module:
    copy = skeleton_copy(model)
    replace_tensors(copy, {k: t.detach().float() for k, t in tensors(model).items() if t.is_floating_point()})
    return copy


def _rounded(comparison: Comparison, model: nn.Module, slim: nn.Module, batches: list[Inputs], file: Path) -> None:
    """Excuses rounding in half precision that is larger than the tolerance of the largest output: if it is no more than
    the measured noise, and float32 copies are equal."""
    free = Comparison(tolerance=comparison.tolerance, room=comparison.room)
    _compare(free, slim, _Session(file), batches)
    if not free.passed:
        return
    own = _of_float32(model, slim, batches)
    if own.passed:
        name = str(dtype_of(slim, batches[0])).removeprefix("torch.")
        comparison.excuse(
            f"rounding in {name}, which alone makes as much ({comparison.max_rel:.2g} of the scale): a float32 copy "
            f"equals its file to {own.max_rel:.1e}"
        )


def _is_complex(slim: nn.Module, inputs: Inputs) -> bool:
    results = attempt(slim, inputs) or []
    return any(isinstance(x, Tensor) and x.is_complex() for x in (*tensors(slim).values(), *inputs.flat(), *results))


def _lacks_kernel(error: Exception) -> bool:
    """Whether the runtime lacks a kernel for a dtype, or numpy lacks the dtype."""
    text = str(error)
    return isinstance(error, NoKernel) or any(word in text for word in ("NOT_IMPLEMENTED", "bfloat16", "BFloat16"))


def _beside_dense(
    comparison: Comparison, model: nn.Module, slim: nn.Module, batches: list[Inputs], folder: Path, file: Path | None
) -> None:
    """Compares the dense network with its own file, and excuses as much of a difference if it is one of precision."""
    dense = Comparison(tolerance=comparison.tolerance, room=comparison.room, capped=True)
    try:
        session = _Session(export_onnx(model, batches[0], folder / "dense.onnx"))
        _compare(dense, model, session, batches)
    except (ModelError, RuntimeError, ValueError) as error:
        comparison.detail += f"; the dense network's file could not be run beside it: {first_line(error)[:160]}"
        return
    comparison.dense = dense.max_rel
    message = f"{comparison.max_rel:.2g} in slim, and {dense.max_rel:.2g} between the dense network and its own file"
    over = [what for what, worst in comparison.worst.items() if worst > comparison.tolerance]
    if dense.only_numbers and _loses_digits(
        comparison, (model, session), (slim, _Session(file or folder / "slim.onnx")), batches
    ):
        comparison.excuse(f"last digits beside the largest values of the output, as in the dense network: {message}")
        return
    shown = dense.worst
    if any(comparison.worst[w] > AS_DENSE * shown.get(w, 0.0) for w in over):
        rounded = rounding_of(slim, batches)  # which of the roundings falls out otherwise is chance
        shown = {w: max(shown.get(w, 0.0), rounded.get(w, 0.0)) for w in over}
        message += f"; {max(rounded.values(), default=0.0):.2g} between slim in its own dtype and in float64"
    if not dense.only_numbers or any(comparison.worst[w] > AS_DENSE * shown.get(w, 0.0) for w in over):
        comparison.detail += f" ({message})"
        return
    if comparison.max_rel <= max(SMALL, 4 * comparison.tolerance):
        comparison.excuse(f"precision of the runtime, as with the dense network: {message}")
    elif _is_noise(comparison, slim, batches, file or folder / "slim.onnx"):
        comparison.withdraw(
            f"rounding alone moves what the file computes as much, as with the dense network's: {message}"
        )
    else:
        comparison.detail = f"the exporter or the runtime computes something else, in the dense network too: {message}"


def _loses_digits(
    comparison: Comparison,
    dense: tuple[nn.Module, _Session],
    slim: tuple[nn.Module, _Session],
    batches: list[Inputs],
) -> bool:
    """Whether only the last digits of tiny values differ, and only where the dense network's differ too.

    "Last digits" are relative to 1, or to the output's largest value if that is less. "Where" means in each slice in
    which the value lies.
    """
    left = Comparison(tolerance=comparison.tolerance, room=comparison.room, capped=True)
    for inputs in batches:
        try:
            (a, b), (c, d) = ((_fresh(network, inputs), file.run(network, inputs)) for network, file in (slim, dense))
        except Exception:  # a batch that a file refuses, which is said elsewhere
            continue
        if not len(a) == len(b) == len(c) == len(d) or any(x.shape != y.shape for x, y in zip(a, c, strict=True)):
            return False
        eps = torch.finfo(dtype_of(slim[0], inputs)).eps
        same = [
            _without_lost_digits(*four, comparison.tolerance, eps) if four[0].is_floating_point() else four[1]
            for four in zip(a, b, c, d, strict=True)
        ]
        left.add(a, same, size_of(inputs), noise_of(slim[0], inputs, a))
    return left.passed


def _without_lost_digits(a: Tensor, b: Tensor, c: Tensor, d: Tensor, tolerance: float, eps: float) -> Tensor:
    """`b`, of slim's file, with the values of slim's own `a` where it loses digits as dense's file `d` does of `c`."""
    if not a.numel() or a.shape != b.shape or c.shape != d.shape:
        return b
    own, theirs = wide(c).abs(), distance(c, d)
    there = own_scale((theirs > tolerance * own_scale(own)).double()) > 0
    lost = there & (distance(a, b) <= DIGITS * eps * wide(a).abs().max().clamp_max(1.0))
    return torch.where(lost.to(b.device), a.to(b), b)


def _fresh(network: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The outputs of a copy, as when the network was exported."""
    with evaluating(skeleton_copy(network)) as fresh:
        return call(fresh, inputs)


def _is_noise(comparison: Comparison, slim: nn.Module, batches: list[Inputs], file: Path) -> bool:
    """Whether the runtime's own outputs move as far when its inputs are rounded differently."""
    session, most = _Session(file), 0.0
    for inputs in batches:
        expected = session.run(slim, inputs)
        for sample in range(samples_of(dtype_of(slim, inputs))):
            generator = torch.Generator().manual_seed(sample)
            moved = session.run(slim, inputs.map(lambda x, g=generator: nudged(x, g)))
            for a, b in zip(expected, moved, strict=True):
                if a.is_floating_point() and a.numel():
                    most = max(most, float(distance(a, b).max() / wide(a).abs().max().clamp_min(1e-300)))
    return comparison.max_rel <= AS_DENSE * most
