"""Holds an ONNX file against the network that it was written from, once, on the example inputs.

Exporters may leave out what they do not follow (a write into a view), and the file is valid all the same. This looks
for a file that computes something else; the gate's comparison, at a tolerance for rounding, is finer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

# Largest difference over the largest magnitude of an output that is taken for rounding; in half precision eight times
# a rounding step of the type. Where rounding weighs more, it is measured (`_rounding`).
TOLERANCE = 1e-3
_STEPS = 8
_SPREAD = 30  # how many times what a rounding step of the inputs changes, as kernels sum in other orders


class FileDiffers(Exception):
    """The file computes something else; the message says what."""


def hold(
    path: Path,
    name: str,
    names: Sequence[str],
    given: Sequence[Tensor],
    expected: Sequence[Tensor],
    run: Callable[[list[Tensor]], list[Tensor]],
) -> None:
    """Raises FileDiffers if the ONNX file at `path` does not make `expected` of `given`, as `run` does.

    `name` is what the file will be called, `names` are those of its inputs, one for each of `given`. A file for which
    onnxruntime lacks a kernel and a network that is random can't be compared: that is logged, as "not compared".
    """
    try:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # the file, as it is
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {n: _array(x) for n, x in zip(names, given, strict=True)}
        made = session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})
    except Exception as error:  # onnxruntime's own classes, and numpy's for types that it lacks
        if not _lacks(error):
            raise FileDiffers(f"the file does not run: {_first_line(error)}") from error
        _log.warning("%s was not compared with the network: %s", name, _first_line(error))
        return
    differences = [_difference(a, b) for a, b in zip(expected, made, strict=True)]
    wrong = [i for i, d in enumerate(differences) if isinstance(d, str) or d > _tolerance(expected[i])]
    if not wrong:
        return
    if any(_difference(a, _array(b)) for a, b in zip(expected, run(list(given)), strict=True)):
        _log.warning("%s was not compared with the network: it is not the same twice", name)
        return
    rounding = _rounding(expected, given, run)
    for i in wrong:
        found = differences[i]
        if isinstance(found, str) or found > _SPREAD * rounding[i]:
            what = found if isinstance(found, str) else f"differs by {found:.2g} of its largest magnitude"
            raise FileDiffers(f"output {i} of the file {what}")


_log = logging.getLogger("structprune.export")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _lacks(error: Exception) -> bool:
    """Whether it is the runtime or numpy that has no such kernel or type, rather than the file that is wrong."""
    kind, text = type(error).__name__, str(error)
    return kind == "NotImplemented" or any(mark in text for mark in _LACKING)


_LACKING = ("NOT_IMPLEMENTED", "unsupported ScalarType", "tensor(bfloat16)", "under development")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _tolerance(tensor: Tensor) -> float:
    return max(TOLERANCE, _STEPS * torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else TOLERANCE


def _difference(expected: Tensor, made: np.ndarray) -> float | str:
    """The largest difference over the largest finite magnitude, or in words what can't be told so."""
    reference = expected.detach().cpu()
    if tuple(reference.shape) != np.shape(made):
        return f"has the shape {np.shape(made)}, the network's {tuple(reference.shape)}"
    a, b = reference.double().numpy(), np.asarray(made).astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)) or not np.array_equal(
        a[~np.isfinite(a)], b[~np.isfinite(b)], equal_nan=True
    ):
        return "is infinite or not a number elsewhere than the network's"
    finite = np.isfinite(a)
    if not finite.any():
        return 0.0
    gap, scale = np.abs(a[finite] - b[finite]).max(), np.abs(a[finite]).max()
    return float(gap / scale) if scale else float(gap > 0)


def _rounding(
    expected: Sequence[Tensor], given: Sequence[Tensor], run: Callable[[list[Tensor]], list[Tensor]]
) -> list[float]:
    """What each output changes by when every number of the inputs moves by a rounding step."""
    generator = torch.Generator().manual_seed(0)

    def moved(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        return x * (1 + torch.finfo(x.dtype).eps * signs)

    changes = [_difference(a, _array(b)) for a, b in zip(expected, run([moved(x) for x in given]), strict=True)]
    return [0.0 if isinstance(change, str) else change for change in changes]
