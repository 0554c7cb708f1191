"""Compares an ONNX file with the network that it was written from, once, on the example inputs.

Exporters may leave out what they do not follow (a write into a view), and the file is valid all the same. This detects
a file that computes something else; the gate's comparison, at a tolerance for rounding, is finer.
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
# the eps of the type. Where rounding weighs more, it is measured (`_rounding`).
TOLERANCE = 1e-3
_STEPS = 8
_SPREAD = 30  # how many times the change that one eps of the inputs makes, as kernels sum in other orders


class FileDiffers(Exception):
    """The file computes something else; the message says what."""


def check(
    path: Path,
    name: str,
    names: Sequence[str],
    inputs: Sequence[Tensor],
    expected: Sequence[Tensor],
    run: Callable[[list[Tensor]], list[Tensor]],
) -> None:
    """Raises FileDiffers if an ONNX file computes something else than the network.

    A file for which onnxruntime lacks a kernel, and a network that is random, can't be compared: that is logged, as
    "not compared".

    Args:
        path: the file.
        name: the name that it will get, for the log.
        names: the names of its inputs, one for each of `inputs`.
        inputs: the example inputs.
        expected: the network's outputs for them.
        run: runs the network.
    """
    try:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # the file, as it is
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {n: _array(x) for n, x in zip(names, inputs, strict=True)}
        results = session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})
    except Exception as error:  # onnxruntime's own classes, and numpy's for types that it lacks
        if not _lacks(error):
            raise FileDiffers(f"the file does not run: {_first_line(error)}") from error
        _log.warning("%s was not compared with the network: %s", name, _first_line(error))
        return
    differences = [_difference(a, b) for a, b in zip(expected, results, strict=True)]
    wrong = [i for i, d in enumerate(differences) if isinstance(d, str) or d > _tolerance(expected[i])]
    if not wrong:
        return
    if any(_difference(a, _array(b)) for a, b in zip(expected, run(list(inputs)), strict=True)):
        _log.warning("%s was not compared with the network: it is not the same twice", name)
        return
    rounding = _rounding(expected, inputs, run)
    for i in wrong:
        difference = differences[i]
        if isinstance(difference, str) or difference > _SPREAD * rounding[i]:
            what = (
                difference if isinstance(difference, str) else f"differs by {difference:.2g} of its largest magnitude"
            )
            raise FileDiffers(f"output {i} of the file {what}")


_log = logging.getLogger("structprune.export")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _lacks(error: Exception) -> bool:
    """Whether the runtime or numpy lacks a kernel or type, and so the file need not be wrong."""
    kind, text = type(error).__name__, str(error)
    return kind == "NotImplemented" or any(mark in text for mark in _LACKING)


_LACKING = ("NOT_IMPLEMENTED", "unsupported ScalarType", "tensor(bfloat16)", "under development")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _tolerance(tensor: Tensor) -> float:
    return max(TOLERANCE, _STEPS * torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else TOLERANCE


def _difference(expected: Tensor, result: np.ndarray) -> float | str:
    """The largest difference over the largest finite magnitude; or in words, if it is not one of numbers."""
    reference = expected.detach().cpu()
    if tuple(reference.shape) != np.shape(result):
        return f"has the shape {np.shape(result)}, the network's {tuple(reference.shape)}"
    a, b = reference.double().numpy(), np.asarray(result).astype(np.float64)
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
    expected: Sequence[Tensor], inputs: Sequence[Tensor], run: Callable[[list[Tensor]], list[Tensor]]
) -> list[float]:
    """How much each output changes when every number of the inputs moves by one eps."""
    generator = torch.Generator().manual_seed(0)

    def moved(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        return x * (1 + torch.finfo(x.dtype).eps * signs)

    changes = [_difference(a, _array(b)) for a, b in zip(expected, run([moved(x) for x in inputs]), strict=True)]
    return [0.0 if isinstance(change, str) else change for change in changes]
