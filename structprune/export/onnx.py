"""Exports to ONNX by torch's TorchScript-based exporter, or by the newer one if that fails.

The newer one (dynamo=True) takes about five times as long on a ResNet and gains nothing for most networks, but knows
some ops that the older one does not, and follows writes into views, which the older one loses. What they write is
checked by `onnx.checker` and compared with the network (`parity`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.onnx.symbolic_helper import parse_args

from ..argument_checks import checked, instance, whole
from ..argument_checks import path as path_option
from ..errors import ModelError
from ..modules import evaluating, plain_transformers, skeleton_copy
from ..ops import Inputs, outputs
from ..process_state import silent_logger, silent_warnings
from ..progress import quiet
from ..store import atomic_files
from ..wrappers import unwrapped
from . import parity
from .fixed_sizes import pinned

OPSET = 17
_NEWER_OPSET = 18  # the least that the newer exporter writes


class _Flat(nn.Module):
    """Takes the flat tensors of `inputs` and returns a flat tuple of tensors, as ONNX wants it."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        flat = [next(remaining) if isinstance(x, Tensor) else x for x in self.inputs.flat()]
        return tuple(outputs(self.inputs.rebuild(flat).call(self.model)))


@checked(ModelError, model=instance(nn.Module, "an nn.Module"), path=path_option, opset=whole(7, 30))
def export_onnx(model: nn.Module, example_inputs: Any, path: str | Path, *, opset: int = OPSET) -> Path:
    """Writes `model` in evaluation mode as ONNX.

    Axis 0 of every tensor input, and of every output whose axis 0 follows it, is dynamic and named `batch`. Inputs
    carry the names of forward's arguments; outputs are `output`, or `output_0`, `output_1`, ...

    Args:
        model: the network.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments that it runs on.
        path: the file, which appears only if it passes `onnx.checker` and onnxruntime computes with it what the model
            does with the example inputs (where the runtime lacks a kernel, the logger `structprune.export` says that it
            was not compared).
        opset: ONNX's version; at least 18 if only torch's newer exporter can write the model.

    Returns:
        `path`.

    Raises:
        ModelError: the model does not run on the example inputs, or neither of torch's exporters can write it.

    Example:
        >>> [sp.export_onnx(network, x, f"{name}.onnx").name for name, network in (("dense", model), ("slim", slim))]
        ['dense.onnx', 'slim.onnx']
    """
    model = unwrapped(model)
    inputs = Inputs.of(example_inputs).beside(model)
    names = [n for n, x in zip(inputs.names(model), inputs.flat(), strict=True) if isinstance(x, Tensor)]
    examples = [x for x in inputs.flat() if isinstance(x, Tensor)]

    def run(tensors: list[Tensor]) -> list[Tensor]:
        with evaluating(skeleton_copy(model)) as copy, plain_transformers():  # some models write to their buffers
            return list(_Flat(copy, inputs)(*(x.clone() for x in tensors)))

    try:
        expected, static = run(examples), pinned(model, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{type(model).__name__} does not run on the example inputs ({type(error).__name__}: "
            f"{_first_line(error)[:300]})"
        ) from error
    result_names = _result_names(names, len(expected))
    batch = examples[0].shape[0] if examples and examples[0].dim() else None
    followers = [n for n, x in zip(result_names, expected, strict=True) if x.dim() and x.shape[0] == batch]
    errors = []
    for exporter, version in ((_older, opset), (_newer, max(opset, _NEWER_OPSET))):

        def write(aside: Path, exporter: Any = exporter, version: int = version) -> None:
            with evaluating(skeleton_copy(static)) as copy, _silent(), plain_transformers():
                exporter(copy, inputs, aside, version, names, result_names, followers)
            onnx.checker.check_model(str(aside), full_check=True)
            parity.check(aside, Path(path).name, names, examples, expected, run)

        try:
            return atomic_files.write(Path(path), write)
        except Exception as error:  # whatever the exporter or the checker raises
            errors.append(f"{type(error).__name__}: {_first_line(error)[:200]}")
    raise ModelError(
        f"{type(model).__name__} can't be exported to ONNX: {errors[0]} (and by torch's newer exporter: {errors[1]})"
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing that exporters print, warn of or log below errors is shown; all is put back at the end."""
    with silent_warnings(), silent_logger("torch.onnx"), quiet():
        yield


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _result_names(names: Sequence[str], count: int) -> list[str]:
    """Names for the outputs beside those of the inputs, as ONNX has one space of names."""
    stem = "output" if "output" not in names else "result"
    return [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]


def opset_of(path: str | Path) -> int:
    """Reads the opset of an ONNX file.

    Args:
        path: The file.

    Returns:
        The version of ONNX's own operators.
    """
    proto = onnx.load(str(path), load_external_data=False)
    return next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


def _older(
    model: nn.Module, inputs: Inputs, path: Path, opset: int, names: list[str], results: list[str], followers: list[str]
) -> None:
    torch.onnx.register_custom_op_symbolic("aten::rms_norm", _rms_norm_at(opset), opset)
    examples = [x for x in inputs.flat() if isinstance(x, Tensor)]
    dynamic = {n: {0: "batch"} for n, x in zip(names, examples, strict=True) if x.dim()}
    torch.onnx.export(
        _Flat(model, inputs).eval(),
        tuple(examples),
        str(path),
        dynamo=False,
        opset_version=opset,
        input_names=names,
        output_names=results,
        dynamic_axes=dynamic | {n: {0: "batch"} for n in followers},
    )


def _rms_norm_at(opset: int) -> Any:
    """x / sqrt(mean(x²) + eps) · weight over the trailing axes, which the older exporter does not know."""

    @parse_args("v", "is", "v", "f")
    def rms_norm(g: Any, x: Any, shape: list[int], weight: Any, eps: float | None) -> Any:
        axes, square = list(range(-len(shape), 0)), g.op("Mul", x, x)
        if opset < 18:
            mean = g.op("ReduceMean", square, axes_i=axes)
        else:  # where the axes became an input
            mean = g.op("ReduceMean", square, g.op("Constant", value_t=torch.tensor(axes)))
        least = torch.finfo(torch.float32).eps if eps is None else eps
        normed = g.op("Div", x, g.op("Sqrt", g.op("Add", mean, g.op("Constant", value_t=torch.tensor(least)))))
        return normed if weight.node().mustBeNone() else g.op("Mul", normed, weight)

    return rms_norm


def _newer(
    model: nn.Module, inputs: Inputs, path: Path, opset: int, names: list[str], results: list[str], followers: list[str]
) -> None:
    if next((x.shape[0] for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 0) == 1:
        inputs = inputs.map(lambda x: torch.cat([x, x]) if x.dim() else x)  # it takes a size of 1 for fixed
    examples = [x for x in inputs.flat() if isinstance(x, Tensor)]
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        _Flat(model, inputs).eval(),
        tuple(examples),
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=names,
        output_names=results,
        dynamic_shapes=(tuple({0: batch} if x.dim() else None for x in examples),),
    )
    assert program is not None
    program.save(str(path), external_data=False)
