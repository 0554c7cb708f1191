"""Compares masked dense, slim, reloaded slim and ONNX on real inputs.

Tolerances, on the largest difference divided by the largest magnitude of the reference output:

- float64, 1e-9: masked and slim sum the same products, the masked one with zeros between. Rounding differs by
  about 1e-16 a term and grows to 1e-12 at most in the deepest networks tried; a channel that is wrongly cut
  moves outputs by 1e-3 and more.
- float32, 1e-4: the same with a rounding of 6e-8 a term. It is also what ONNX, which fuses and reorders, is
  held to against PyTorch. Measured: 1e-7 to 1e-5.
- reload: the same weights in the same modules, so every tensor is equal bit for bit and outputs agree to 1e-6
  (PyTorch may choose another kernel for differently aligned memory).

Two sets of weights go through the first comparison: the model's own, and random ones. Trained or freshly
initialised weights can hide a wrong cut (a BatchNorm whose scale starts at zero switches a whole branch off);
random ones can't.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from ..export import export_onnx
from ..graph.capture import Inputs, outputs
from ..modules import evaluating, plain_transformers, replace_tensors, skeleton_copy, tensors
from ..options import checked, instance, optional, path
from ..records import Plan
from ..store import load, save
from ..wrappers import unwrapped
from .masked import Doubled, MaskedStatistics, cut, masked

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "reload": 1e-6}


@dataclass
class Comparison:
    """The largest absolute difference, and the largest relative to the reference's largest magnitude."""

    max_abs: float = 0.0
    max_rel: float = 0.0
    tolerance: float = 0.0
    passed: bool = True
    detail: str = ""
    batches: list[int] = field(default_factory=list)

    def add(self, reference: list[Tensor], other: list[Tensor], batch: int) -> None:
        if not reference:
            self.fail("the model returns no tensor that could be compared")
            return
        if len(reference) != len(other):
            self.fail(f"{len(reference)} outputs against {len(other)}")
            return
        for a, b in zip(reference, other, strict=True):
            if a.shape != b.shape:
                self.fail(f"output shapes {tuple(a.shape)} and {tuple(b.shape)} at batch {batch}")
                return
            if not a.numel():
                continue
            a, b = (torch.view_as_real(x) if x.is_complex() else x for x in (a, b))
            a, b = a.detach().double().cpu(), b.detach().double().cpu()
            if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
                self.fail(f"outputs that are not finite at batch {batch}")
                return
            difference, scale = float((a - b).abs().max()), float(a.abs().max())
            self.max_abs = max(self.max_abs, difference)
            self.max_rel = max(self.max_rel, difference / scale if scale else float(difference > 0))
        self.batches.append(batch)
        if self.max_rel > self.tolerance:
            self.fail(f"relative difference {self.max_rel:.3g} over {self.tolerance:g}")

    def fail(self, detail: str) -> None:
        self.passed, self.detail = False, self.detail or detail


@dataclass
class Gate:
    """`passed`, and what was measured: `masked_vs_slim` (float32), `float64`, `random_weights`, `reload`, `onnx`."""

    masked_vs_slim: Comparison
    float64: Comparison
    random_weights: Comparison
    reload: Comparison
    onnx: Comparison

    @property
    def passed(self) -> bool:
        return all(comparison.passed for comparison in self.comparisons().values())

    def comparisons(self) -> dict[str, Comparison]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def reasons(self) -> list[str]:
        return [f"{name}: {c.detail}" for name, c in self.comparisons().items() if not c.passed]

    def to_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **{name: asdict(c) for name, c in self.comparisons().items()}}


@contextmanager
def _full_float32() -> Iterator[None]:
    """On a GPU, torch may otherwise round the factors of convolutions and matrix products to TF32's 10 bits."""
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    as_is = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(**as_is, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


@checked(
    model=instance(nn.Module, "the dense nn.Module"),
    slim=instance(nn.Module, "the slim nn.Module"),
    plan=instance(Plan, "the plan that slim was made by"),
    folder=optional(path),
    onnx=optional(path),
)
@_full_float32()
def verify(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    example_inputs: Any,
    *,
    folder: str | Path | None = None,
    onnx: str | Path | None = None,
) -> Gate:
    """Holds `slim` against the masked `model`, against itself reloaded from files, and against its ONNX file.

    `model` is the dense model with the weights that `slim` was cut from (for a slim model that was trained
    since, `expanded(model, slim, plan)`). `example_inputs` should be real data; they run at batch 1 and at
    another batch size. `folder` and `onnx` name files that exist already; without them, files are written to
    a temporary folder. Nothing raises for a slim model that is wrong: see `.passed` and `.reasons()`.
    """
    model, slim = unwrapped(model), unwrapped(slim)
    inputs = Inputs.of(example_inputs)
    batches = _batches(model, inputs)
    gate = Gate(
        masked_vs_slim=Comparison(tolerance=TOLERANCE["float32"]),
        float64=Comparison(tolerance=TOLERANCE["float64"]),
        random_weights=Comparison(tolerance=TOLERANCE["float64"]),
        reload=Comparison(tolerance=TOLERANCE["reload"]),
        onnx=Comparison(tolerance=TOLERANCE["float32"]),
    )
    _guard(gate.masked_vs_slim, lambda: _compare(gate.masked_vs_slim, masked(model, plan), slim, batches))
    _guard(gate.float64, lambda: _compare64(gate.float64, masked(model, plan), slim, batches))
    _guard(gate.random_weights, lambda: _compare_random(gate.random_weights, model, slim, plan, batches))
    with tempfile.TemporaryDirectory() as temporary:

        def reload() -> None:
            saved = Path(folder) if folder else save(slim, plan, temporary)
            _compare_reload(gate.reload, model, slim, saved, batches)

        def run_onnx() -> None:
            file = Path(onnx) if onnx else export_onnx(slim, batches[0], Path(temporary) / "slim.onnx")
            _compare_onnx(gate.onnx, slim, file, batches)

        _guard(gate.reload, reload)
        _guard(gate.onnx, run_onnx)
    return gate


def _guard(comparison: Comparison, step: Any) -> None:
    try:
        step()
    except Exception as error:  # a slim model that is wrong may fail in any way
        lines = str(error).strip().splitlines()
        comparison.fail(f"{type(error).__name__}: {lines[0] if lines else ''}")


def _compare(comparison: Comparison, reference: nn.Module, other: nn.Module, batches: list[Inputs]) -> None:
    reference, other = skeleton_copy(reference), skeleton_copy(other)  # some models write to their buffers
    with evaluating(reference), evaluating(other), plain_transformers():
        for inputs in batches:
            comparison.add(outputs(inputs.call(reference)), outputs(inputs.call(other)), _size(inputs))


def _compare64(comparison: Comparison, reference: nn.Module, other: nn.Module, batches: list[Inputs]) -> None:
    """In float64, or in float32 (at its tolerance) where the reference itself is written for that dtype."""
    double = [inputs.map(lambda x: x.double() if x.is_floating_point() else x) for inputs in batches]
    if _runs(_double(reference), double[0]):
        _compare(comparison, _double(reference), _double(other), double)
        return
    comparison.detail = "compared in float32: the dense network does not run in float64"
    comparison.tolerance = TOLERANCE["float32"]
    _compare(comparison, reference, other, batches)


def _runs(model: nn.Module, inputs: Inputs) -> bool:
    model = skeleton_copy(model)
    with evaluating(model):
        try:
            return all(bool(torch.isfinite(x).all()) for x in outputs(inputs.call(model)))
        except Exception:  # written for one dtype, or for weights of another kind
            return False


def _double(model: nn.Module) -> nn.Module:
    copy = skeleton_copy(model)
    replace_tensors(copy, {k: t.detach().double() for k, t in tensors(model).items() if t.is_floating_point()})
    return copy if isinstance(copy, MaskedStatistics) else Doubled(copy)


def _compare_random(
    comparison: Comparison, model: nn.Module, slim: nn.Module, plan: Plan, batches: list[Inputs]
) -> None:
    dense, small = skeleton_copy(model), skeleton_copy(slim)
    for make in (_random_weights, _disturbed_weights):
        weights = make(model)
        replace_tensors(dense, weights)
        if _runs(masked(dense, plan), batches[0]):
            break
    else:
        comparison.detail = "not compared: the dense network gives no finite output with other weights"
        return
    replace_tensors(small, {key: cut(tensor, plan.keep.get(key, {})).contiguous() for key, tensor in weights.items()})
    _compare64(comparison, masked(dense, plan), small, batches[:1])


def _disturbed_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's own weights, each by up to a half larger, and 0.1 where they are zero: they keep their signs."""
    generator = torch.Generator().manual_seed(0)
    result = {}
    for key, tensor in tensors(model).items():
        if tensor.is_floating_point():
            own = tensor.detach().cpu().float()
            noise = 1 + 0.5 * torch.rand(tensor.shape, generator=generator)
            result[key] = torch.where(own == 0, torch.full_like(own, 0.1), own * noise).to(tensor)
    return result


def _random_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of such a size that signals neither vanish nor explode; statistics stay positive."""
    generator = torch.Generator().manual_seed(0)
    result = {}
    for key, tensor in tensors(model).items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            fan_in = tensor[0].numel()
            values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * (2 / fan_in) ** 0.5
        elif key.endswith(("weight", "running_var")):
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
        else:
            values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.1
        result[key] = values.to(tensor)
    return result


def _compare_reload(
    comparison: Comparison, model: nn.Module, slim: nn.Module, folder: Path, batches: list[Inputs]
) -> None:
    described = "missing" not in json.loads((folder / "plan.json").read_text())["architecture"]
    again = load(folder) if described else load(folder, model)
    own, theirs = tensors(slim), tensors(again)
    for key, tensor in own.items():
        if key not in theirs or not torch.equal(tensor.cpu(), theirs[key].cpu()):
            comparison.fail(f"{key} is not the tensor that was saved")
            return
    replace_tensors(again, {key: theirs[key].to(tensor.device) for key, tensor in own.items()})
    _compare(comparison, slim, again, batches)


def _compare_onnx(comparison: Comparison, slim: nn.Module, file: Path, batches: list[Inputs]) -> None:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    for inputs in batches:
        given = dict(zip(inputs.names(slim), inputs.flat(), strict=True))
        feed = {name: given[name].detach().cpu().numpy() for name in names}
        made = [torch.from_numpy(np.asarray(array)) for array in session.run(None, feed)]
        with evaluating(skeleton_copy(slim)) as fresh, plain_transformers():  # as when it was exported
            comparison.add(outputs(inputs.call(fresh)), made, _size(inputs))


def _batches(model: nn.Module, inputs: Inputs) -> list[Inputs]:
    """The inputs at batch 1 and at another size: as given, or one sample and a shifted copy of it.

    Where the dense model itself runs at only one batch size, only that one.
    """
    size = _size(inputs)
    if size > 1:
        candidates = [inputs.map(lambda x: x[:1] if x.dim() and x.shape[0] == size else x), inputs]
    else:
        candidates = [inputs, inputs.map(lambda x: torch.cat([x, x.roll(1, -1)]) if x.dim() else x)]
    usable = []
    model = skeleton_copy(model)
    with evaluating(model):
        for candidate in candidates:
            try:
                candidate.call(model)
                usable.append(candidate)
            except Exception:  # a model that was written for one batch size
                continue
    return usable or [inputs]


def _size(inputs: Inputs) -> int:
    return next((int(x.shape[0]) for x in inputs.flat() if isinstance(x, Tensor) and x.dim()), 1)
