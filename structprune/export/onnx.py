"""Exports to ONNX by torch's TorchScript-based exporter, or by the newer one if that fails.

The newer one (dynamo=True) takes about five times as long on a ResNet and gains nothing for most networks, but knows
some ops that the older one does not, and follows writes into views, which the older one loses. What they write is
checked by `onnx.checker` and compared with the network (`parity`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.symbolic_helper import parse_args

from ..argument_checks import checked, flag, instance, optional, whole
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


@dataclass(frozen=True)
class _Task:
    """What is to be written: a network with its example, the names of inputs and outputs, and which axes are open.

    `axes` has, for each input and output, the names of its open axes by their number.
    """

    model: nn.Module
    inputs: Inputs
    opset: int
    names: list[str]
    results: list[str]
    axes: dict[str, dict[int, str]]

    @property
    def examples(self) -> list[Tensor]:
        return _tensors(self.inputs)


@checked(
    ModelError,
    model=instance(nn.Module, "an nn.Module"),
    path=path_option,
    opset=whole(7, 30),
    any_size=flag,
    metadata=optional(instance(Mapping, "a mapping from names to texts")),
)
def export_onnx(
    model: nn.Module,
    example_inputs: Any,
    path: str | Path,
    *,
    opset: int = OPSET,
    any_size: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
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
        any_size: whether images (inputs of four axes) may have any height and width; it is compared at others too.
        metadata: texts that the file carries by name, as its `metadata_props`.

    Returns:
        `path`.

    Raises:
        ModelError: the model does not run on the inputs, or neither of torch's exporters can write it.

    Example:
        >>> [sp.export_onnx(network, x, f"{name}.onnx").name for name, network in (("dense", model), ("slim", slim))]
        ['dense.onnx', 'slim.onnx']
    """
    model = unwrapped(model)
    inputs = Inputs.of(example_inputs).beside(model)

    def run(tensors: list[Tensor]) -> list[Tensor]:
        with evaluating(skeleton_copy(model)) as copy, plain_transformers():  # some models write to their buffers
            return list(_Flat(copy, inputs)(*(x.clone() for x in tensors)))

    compared = _expected(type(model).__name__, inputs, any_size, run)
    task = _task(model, inputs, opset, [results for _, results in compared])
    errors = []
    for exporter, version in ((_older, opset), (_newer, max(opset, _NEWER_OPSET))):

        def write(aside: Path, exporter: Any = exporter, version: int = version) -> None:
            with evaluating(skeleton_copy(task.model)) as copy, _silent(), plain_transformers():
                exporter(replace(task, model=copy, opset=version), aside)
            _describe(aside, metadata or {})
            _check(aside, Path(path).name, task.names, compared, run)

        try:
            return atomic_files.write(Path(path), write)
        except Exception as error:  # whatever the exporter or the checker raises
            errors.append(f"{type(error).__name__}: {_first_line(error)[:200]}")
    raise ModelError(
        f"{type(model).__name__} can't be exported to ONNX: {errors[0]} (and by torch's newer exporter: {errors[1]})"
    )


_Run = Callable[[list[Tensor]], list[Tensor]]
_RAISED = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)
# How much higher and wider other images are: by what networks need their sizes to be multiples of, and by odd numbers,
# at which sizes that the exporter took for fixed come out (a padding that follows the size), where the network runs so.
_MORE, _ODD = (64, 128), (37, 13)


def _check(
    file: Path, name: str, names: list[str], compared: list[tuple[list[Tensor], list[Tensor]]], run: _Run
) -> None:
    """Raises an exception for a file that is not ONNX, or that computes something else than the network."""
    onnx.checker.check_model(str(file), full_check=True)
    for tensors, results in compared:
        parity.check(file, name, names, tensors, results, run)


def _expected(network: str, inputs: Inputs, any_size: bool, run: _Run) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The inputs that the file is compared on, each with what the network makes of them: the example comes first."""
    compared = []
    for more in (None, _MORE, _ODD) if any_size else (None,):
        tensors = _tensors(inputs if more is None else resized(inputs, *more))
        try:
            compared.append((tensors, run(tensors)))
        except _RAISED as error:
            if more == _ODD:
                continue
            sizes = ("×".join(map(str, x.shape[2:])) for x in tensors if x.dim() == 4)
            where = "the example inputs" if more is None else f"images of {' and '.join(sizes)}"
            raise ModelError(
                f"{network} does not run on {where} ({type(error).__name__}: {_first_line(error)[:300]})"
            ) from error
    return compared


def _task(model: nn.Module, inputs: Inputs, opset: int, expected: Sequence[Sequence[Tensor]]) -> _Task:
    """Names inputs and outputs, and finds the axes that are open, by what the outputs are for each sample."""
    names = [n for n, x in zip(inputs.names(model), inputs.flat(), strict=True) if isinstance(x, Tensor)]
    examples = _tensors(inputs)
    results = _result_names(names, len(expected[0]))
    batch = examples[0].shape[0] if examples and examples[0].dim() else None
    axes: dict[str, dict[int, str]] = {n: {0: "batch"} for n, x in zip(names, examples, strict=True) if x.dim()}
    axes |= {n: {0: "batch"} for n, x in zip(results, expected[0], strict=True) if x.dim() and x.shape[0] == batch}
    if len(expected) == 1:
        return _Task(pinned(model, inputs), inputs, opset, names, results, axes)
    for name, example in zip(names, examples, strict=True):
        if example.dim() == 4:
            axes[name] |= {2: "height", 3: "width"}
    for name, ours, theirs in zip(results, *expected[:2], strict=True):
        other = [axis for axis, (a, b) in enumerate(zip(ours.shape, theirs.shape, strict=True)) if a != b]
        axes.setdefault(name, {}).update({axis: f"{name}_{axis}" for axis in other})
    return _Task(model, inputs, opset, names, results, axes)


def resized(inputs: Inputs, higher: int, wider: int) -> Inputs:
    """The same inputs with images of another size.

    Args:
        inputs: Some of which are images, tensors of four axes.
        higher: How many pixels they get in height; less than 0 to make them lower.
        wider: Likewise in width.

    Returns:
        The inputs, with images interpolated.
    """
    return inputs.map(
        lambda x: (
            F.interpolate(x, (max(1, x.shape[2] + higher), max(1, x.shape[3] + wider)))
            if x.dim() == 4 and x.is_floating_point()
            else x
        )
    )


def _tensors(inputs: Inputs) -> list[Tensor]:
    return [x for x in inputs.flat() if isinstance(x, Tensor)]


def _describe(path: Path, metadata: Mapping[str, str]) -> None:
    """Puts texts into a file; without any, it is left as it is."""
    if metadata:
        proto = onnx.load(str(path))
        onnx.helper.set_model_props(proto, {**metadata})
        onnx.save(proto, str(path))


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


def _older(task: _Task, path: Path) -> None:
    torch.onnx.register_custom_op_symbolic("aten::rms_norm", _rms_norm_at(task.opset), task.opset)
    torch.onnx.export(
        _Flat(task.model, task.inputs).eval(),
        tuple(task.examples),
        str(path),
        dynamo=False,
        opset_version=task.opset,
        input_names=task.names,
        output_names=task.results,
        dynamic_axes=task.axes,
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


def _newer(task: _Task, path: Path) -> None:
    inputs = task.inputs
    if next((x.shape[0] for x in task.examples if x.dim()), 0) == 1:
        inputs = inputs.map(lambda x: torch.cat([x, x]) if x.dim() else x)  # it takes a size of 1 for fixed
    sizes = {name: torch.export.Dim(name) for axes in task.axes.values() for name in axes.values()}
    open_axes = [{axis: sizes[name] for axis, name in task.axes.get(each, {}).items()} or None for each in task.names]
    program = torch.onnx.export(
        _Flat(task.model, inputs).eval(),
        tuple(_tensors(inputs)),
        dynamo=True,
        verbose=False,
        opset_version=task.opset,
        input_names=task.names,
        output_names=task.results,
        dynamic_shapes=(tuple(open_axes),),
    )
    assert program is not None
    program.save(str(path), external_data=False)
