"""The gate: masked dense, slim, reloaded slim and ONNX on real inputs, and one training step.

Each comparison is passed, failed, or not compared with its reason: where a runtime has no kernel, a network draws
numbers, or can't train. What is compared, and to what tolerance, stands in `comparison` and docs/report.md.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..argument_checks import checked, flag, instance, optional, path
from ..errors import StoreError
from ..modules import replace_tensors, tensors
from ..ops import Inputs
from ..process_state import full_float32, seeded, silent_warnings
from ..records import Plan
from ..store import atomic_files, load, save
from ..store.weights import digest
from ..surgery import merged, wrong_shape
from ..wrappers import unwrapped
from .comparison import TOLERANCE, Comparison, reload_tolerance
from .gate_records import GateOfCut
from .masked_reference import expanded, masked
from .onnx_file import compare_onnx
from .other_weights import compare_random, shows_cut
from .running import (
    batches_of,
    compare_finest,
    draws,
    dtype_of,
    excuse_rounding,
    first_line,
    levels,
    refusals,
    size_of,
)
from .tied_reference import compare_tied, tied
from .training_step import compare_training
from .weight_origin import Weights, weights_of

ESSENTIAL = ("masked_vs_slim", "float64", "reload")  # without these nothing is proven
_UNSEEN = (
    "the outputs are the dense network's, uncut, with its own weights and with others: for these inputs they do not "
    "show the cut. Give real inputs"
)
__all__ = ["TOLERANCE", "Comparison", "Gate", "verify"]


@dataclass(repr=False)
class Gate:
    """The gate's comparisons, and whether it passed.

    `masked_vs_slim` in the network's own dtype, `float64` and `random_weights` in float64, `reload`, `onnx`, and
    `training`, one step. `passed` needs all that could be compared to be equal, and the first two and `reload` to
    have been; `not_compared` says what was not, and why. `weights` says whether slim has the dense network's weights at
    the plan's positions, and what it was compared with if it was trained since.
    """

    masked_vs_slim: Comparison
    float64: Comparison
    random_weights: Comparison
    reload: Comparison
    onnx: Comparison
    training: Comparison
    weights: Weights | None = None

    @classmethod
    def of(cls, native: torch.dtype, weights: Weights) -> Gate:
        """Makes a gate whose comparisons are still to be made.

        Args:
            native: what the network computes in
            weights: whether the slim network has the dense one's weights

        Returns:
            The gate.
        """
        return cls(
            masked_vs_slim=Comparison.of(native),
            float64=Comparison.of(torch.float64, proves=True),
            random_weights=Comparison.of(torch.float64, proves=True),
            reload=Comparison.of(native, reload_tolerance(native), proves=True),
            onnx=Comparison.of(native),
            training=Comparison.of(torch.float64, proves=True),
            weights=weights,
        )

    def __repr__(self) -> str:
        lines = [f"{name}: {_said(comparison)}" for name, comparison in self.comparisons().items()]
        weights = [reason for reason in self.reasons() if reason.startswith("weights: ")]
        return "\n  ".join([f"<Gate {'passed' if self.passed else 'failed'}", *lines, *weights]) + ">"

    @property
    def passed(self) -> bool:
        return not self.reasons()

    def comparisons(self) -> dict[str, Comparison]:
        """Lists the comparisons.

        Returns:
            Each by its name.
        """
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "weights"}

    def reasons(self) -> list[str]:
        """Lists why the gate did not pass: comparisons that failed, and essential ones that were not made.

        Returns:
            One line each; none where it passed.
        """
        reasons = [
            f"{name}: {c.detail or 'nothing was compared'}"
            for name, c in self.comparisons().items()
            if c.failed or (name in ESSENTIAL and not c.passed)
        ]
        whose = self.weights.reason(bool(reasons)) if self.weights else ""
        return [*reasons, *([f"weights: {whose}"] if whose else [])]

    def not_compared(self) -> list[str]:
        """Lists what could not be compared, and why: `passed` does not cover it.

        Returns:
            One line each.
        """
        missing = [f"{name}: {c.detail}" for name, c in self.comparisons().items() if c.state == "not compared"]
        left_out = {line: None for comparison in self.comparisons().values() for line in comparison.left_out}
        return [*missing, *left_out]

    def record(self) -> GateOfCut:
        """The gate as report.json holds it.

        Returns:
            A record; its `to_data()` is plain data for a JSON file.

        Example:
            >>> gate = sp.verify(model, slim, plan, x)
            >>> gate.record().to_data()["passed"]
            True
        """
        return GateOfCut(
            passed=self.passed,
            not_compared=self.not_compared(),
            **{} if self.weights is None else {"weights": self.weights.record()},
            masked_vs_slim=self.masked_vs_slim.record(),
            float64=self.float64.record(),
            random_weights=self.random_weights.record(),
            reload=self.reload.record(),
            onnx=self.onnx.record(),
            training=self.training.record(),
        )


def _said(comparison: Comparison) -> str:
    """What a comparison came to, in one line."""
    if comparison.passed:
        return f"passed, differs by {comparison.max_rel:.1e} where {comparison.tolerance:.0e} is allowed"
    return f"failed, {comparison.detail}" if comparison.failed else comparison.detail or "not compared"


@checked(
    model=instance(nn.Module, "the dense nn.Module"),
    slim=instance(nn.Module, "the slim nn.Module"),
    plan=instance(Plan, "the plan that slim was made by"),
    trained=flag,
    folder=optional(path),
    onnx=optional(path),
)
@full_float32()
@seeded()
def verify(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    example_inputs: Any,
    *,
    trained: bool = False,
    folder: str | Path | None = None,
    onnx: str | Path | None = None,
) -> Gate:
    """Holds `slim` against the masked `model`, against itself reloaded from files, and against its ONNX file.

    Nothing raises for a slim model that is wrong. A batch size that `slim` refuses by name (a graph form whose code
    goes other ways there) is left out, and said in `detail`, unless it is that of `example_inputs`.

    Args:
        model: the dense model, with the weights that `slim` was cut from.
        slim: what `prune` made of it.
        plan: the plan that it was made by.
        example_inputs: real data; they run at batch 1 and at another batch size.
        trained: whether `slim` was trained or recovered since it was cut. Then the reference is the dense
            architecture with its weights at the plan's positions, zeros between: that proves the network, not whose
            weights it has. Without it, weights that are not the dense network's fail the gate.
        folder: where `slim` was saved; without it, files are written to a temporary folder.
        onnx: the file that `slim` was exported to, likewise.
    Returns:
        The comparisons: see `.passed` and `.reasons()`, `.not_compared()` for what that leaves out, and `.weights`.
    Raises:
        StoreError: there is no room for the files that it compares.

    Example:
        >>> gate = sp.verify(model, slim, plan, x)
        >>> gate.passed
        True
    """
    model, slim = unwrapped(model), unwrapped(slim)
    inputs = Inputs.of(example_inputs).beside(model)
    batches, native = batches_of(model, inputs), dtype_of(model, inputs)
    refused = refusals(slim, batches, inputs)
    batches = [batch for batch in batches if size_of(batch) not in refused]
    dense, model = model, merged(model, plan) if plan.merges is not None else model
    weights = weights_of(model, slim, plan, trained)
    if trained:
        try:
            model = expanded(model, slim, plan)
        except Exception as error:  # tensors are missing, or of other shapes
            weights.error = wrong_shape(tensors(slim), plan, "the slim network") or first_line(error)
    gate = Gate.of(native, weights)
    untied = dense if plan.merges is not None and not trained else None
    case = _Case(model, slim, plan, batches, draws(model, batches[0]), untied)
    _compare_all(gate, case, folder, onnx)
    _weigh(gate, case)
    for comparison, (size, reason) in itertools.product(gate.comparisons().values(), refused.items()):
        comparison.leave_out(f"batch {size} not compared: {reason}")
    return gate


@dataclass(frozen=True)
class _Case:
    """What is compared: the masked `model` and `slim` on `batches`. `random` is a message if the network is random.

    Where channels were merged, `model` has the merged weights in the places that stay, and `untied` is the dense
    network with its own weights, if these are what was merged.
    """

    model: nn.Module
    slim: nn.Module
    plan: Plan
    batches: list[Inputs]
    random: str
    untied: nn.Module | None = None

    def masked(self) -> nn.Module:
        return masked(self.model, self.plan)

    def reference(self) -> nn.Module:
        """What slim must equal: the network in which merged channels all compute their mean, or the masked one."""
        return self.masked() if self.untied is None else tied(self.untied, self.plan)

    def compare_unrounded(self, comparison: Comparison) -> None:
        compare_finest(comparison, self.masked(), self.slim, self.batches, dense=self.model)
        if self.untied is not None:
            compare_tied(comparison, self.untied, self.plan, self.batches)


def _compare_all(gate: Gate, case: _Case, folder: str | Path | None, onnx: str | Path | None) -> None:
    """Makes the gate's comparisons, one after the other."""
    model, slim, plan, batches = case.model, case.slim, case.plan, case.batches
    makers: dict[str, Callable[[], None]] = {
        "masked_vs_slim": lambda: compare_finest(
            gate.masked_vs_slim, case.reference(), slim, batches, order=_from_its_own, dense=model
        ),
        "float64": lambda: case.compare_unrounded(gate.float64),
        "random_weights": lambda: compare_random(gate.random_weights, model, slim, plan, batches),
        "reload": lambda: _compare_reload(gate.reload, model, slim, plan, folder, batches),
        "onnx": lambda: compare_onnx(gate.onnx, model, slim, batches, Path(onnx) if onnx else None, bool(case.random)),
        "training": lambda: compare_training(
            gate.training, model, slim, plan, batches, gate.float64.passed and not gate.random_weights.failed
        ),
    }
    for name, make in makers.items():
        try:
            make()
        except Exception as error:  # a slim model that is wrong may fail in any way
            if atomic_files.no_room(error):
                raise StoreError(
                    f"there is no room left for the files of the gate's comparison {name} (in {tempfile.gettempdir()} "
                    "where no folder is given): make room, or set TMPDIR to another disk"
                ) from error
            getattr(gate, name).fail(first_line(error), broken=True)


def _weigh(gate: Gate, case: _Case) -> None:
    """Weighs the comparisons against each other and the network: they prove nothing if the outputs do not depend on the
    cut; rounding is excused if the network rounds coarsely; a random network proves little."""
    if gate.float64.passed and not shows_cut(case.model, case.plan, case.batches):
        gate.float64.skip(_UNSEEN)
    if gate.float64.passed and gate.float64.tolerance == TOLERANCE["float64"] and not case.random:
        excuse_rounding(gate.masked_vs_slim, case.reference(), case.slim, case.batches)
    if case.random:
        _note_random(gate, case.random)


def _from_its_own(native: torch.dtype) -> list[torch.dtype]:
    return [native, *(dtype for dtype in reversed(levels(native)) if dtype != native)]


def _note_random(gate: Gate, random: str) -> None:
    """For a random network a difference proves nothing, but equal outputs from one seed do."""
    for comparison in gate.comparisons().values():
        if comparison.failed and not comparison.broken:
            comparison.withdraw(f"{random}; here {comparison.detail}")
        elif comparison.passed:
            comparison.note(f"from the same seed: {random}")


def _compare_reload(
    comparison: Comparison,
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    folder: str | Path | None,
    batches: list[Inputs],
) -> None:
    with tempfile.TemporaryDirectory() as temporary, silent_warnings(UserWarning):  # of `save`: it is noted here
        saved = Path(folder) if folder else save(slim, plan, temporary)
        missing = json.loads((saved / "plan.json").read_text())["architecture"].get("missing")
        if digest(Plan.read(saved / "plan.json")) != digest(plan):
            comparison.fail(f"{saved / 'plan.json'} is another plan than the one that slim was made by", broken=True)
            return
        again = load(saved, model) if missing else load(saved)
    if missing:
        comparison.note(f"loaded onto a dense instance: {missing}")
    own, theirs = tensors(slim), tensors(again)
    for key, tensor in own.items():
        same = key in theirs and tensor.dtype == theirs[key].dtype and tensor.shape == theirs[key].shape
        if not same or not _equal(tensor, theirs[key]):
            comparison.fail(f"{key} is not the tensor that was saved")
            return
    replace_tensors(again, {key: theirs[key].to(tensor.device) for key, tensor in own.items()})
    compare_finest(comparison, slim, again, batches, order=_from_its_own)


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether all numbers are the same, NaN among them."""
    a, b = a.detach().cpu(), b.cpu()
    return bool(((a == b) | ((a != a) & (b != b))).all())
