"""Compares one training step of masked dense and slim: outputs, gradients and running statistics.

Same seeds, dropout off, in float64. What is left of a masked filter has the gradient of the slim network's filter, and
a BatchNorm, which takes the statistics of each channel alone, the same running statistics there. Where a removed
channel takes part in what the others compute in training mode (statistics of a batch over the channels themselves), the
cut is exact in evaluation only, and the message says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..modules import plain_transformers, replace_tensors, skeleton_copy, tensors, walk
from ..ops import Inputs, outputs
from ..ops.forward_pass import meta_copy
from ..process_state import seeded
from ..records import Plan
from .comparison import Comparison, Noise
from .masked_reference import cut, masked, refilled
from .running import SAMPLES, attempt, cast, distance, dtype_of, first_line, in_dtype, levels, nudged, size_of

SAMPLES_OF_STEP = 4
MOST = 6 * 2**30  # bytes that a step may keep for its backward pass
_GRAPH = (
    "slim is a graph: in training mode it runs what the dense network runs in evaluation, but for BatchNorm, dropout"
)
_EVALUATION_ONLY = (
    "exact in evaluation only: in training mode what is removed takes part in what is kept, as in statistics of a "
    "batch over these channels"
)
_DROPS = frozenset(["DropPath", "StochasticDepth", "DropBlock2d", "DropBlock3d", "PatchDropout"])


class _NoStep(Exception):
    """A network that can't take a training step; the message says why."""


def _kept_bytes(model: nn.Module, inputs: Inputs, dtype: torch.dtype) -> int:
    """The bytes that a training step in `dtype` keeps for its backward pass, measured without computing; 0 if that
    fails."""
    copy = meta_copy(model, {})
    replace_tensors(copy, {k: t.to(dtype) for k, t in tensors(copy).items() if t.is_floating_point()})
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
        return tensor

    try:
        with _training(copy), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            for parameter in copy.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            kept = (
                cast(inputs, dtype).map(lambda x: x.to("meta")).call(copy)
            )  # alive, so that no storage is counted anew
            del kept
    except Exception:  # code that asks for values, or does not run in this dtype
        return 0
    return sum(storages.values())


@dataclass
class Step:
    """The tensors of one training step by name. Weights that no gradient reaches have zeros."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def kept(self, plan: Plan) -> Step:
        """The same step, with only what a plan leaves of each tensor."""

        def left(tensors_by_key: dict[str, Tensor]) -> dict[str, Tensor]:
            return {key: cut(tensor, plan.keep.get(key, {})) for key, tensor in tensors_by_key.items()}

        return Step(self.outputs, left(self.gradients), left(self.buffers))

    def flat(self) -> dict[str, Tensor]:
        named = [("", self.outputs), ("gradient of ", self.gradients), ("", self.buffers)]
        return {f"{kind}{key}": tensor for kind, tensors_by_key in named for key, tensor in tensors_by_key.items()}


def compare_training(
    comparison: Comparison, model: nn.Module, slim: nn.Module, plan: Plan, batches: list[Inputs], right: bool
) -> None:
    """Compares one training step; says why not if the dense network can't take one, or is random.

    Args:
        comparison: Gets what comes of it.
        model: The dense network.
        slim: What `prune` made of it.
        plan: The plan.
        batches: Inputs; a few samples of the last are used.
        right: Whether slim is right in evaluation: only then may a difference be due to training mode.
    """
    native, few = dtype_of(model, batches[-1]), _few(batches[-1], SAMPLES_OF_STEP)
    fitting = [(dtype, some) for dtype in levels(native) if (some := _fitting(model, few, dtype)) is not None]
    reason = f"of one sample it would keep more than {MOST / 2**30:g} GiB"
    for dtype, some in fitting:
        inputs = cast(some, dtype)
        weights = _Weighted(inputs)
        try:
            reference = in_dtype(masked(model, plan), dtype, native, still=True)
            expected = weights.step(reference).kept(plan)
            break
        except Exception as error:  # whatever the user's code raises
            reason = str(error) if isinstance(error, _NoStep) else first_line(error)
    else:
        comparison.skip(f"the dense network, masked, takes no training step here: {reason}")
        return
    comparison.hold_to(dtype)

    def again(network: nn.Module, seed: int = 0) -> Step:
        return weights.step(in_dtype(network, dtype, native, still=True), seed).kept(plan)

    def evaluated(network: nn.Module) -> list[Tensor] | None:
        return attempt(in_dtype(network, dtype, native), inputs)

    is_graph = plan.program is not None
    try:
        result = weights.step(in_dtype(slim, dtype, native, still=True))
        if is_graph:  # it has no code that counts batches
            result.buffers = {key: b for key, b in result.buffers.items() if b.is_floating_point()}
        _add(comparison, expected, result, size_of(inputs), _noise(weights, reference, inputs, expected, plan))
    except Exception as error:  # a slim network that is wrong may fail in any way
        comparison.fail(f"slim takes no training step: {first_line(error)}", broken=True)
    if comparison.failed and not comparison.broken and is_graph and right:
        comparison.withdraw(f"{_GRAPH} ({comparison.detail})")
    elif comparison.failed and comparison.only_numbers and right:
        _explain(comparison, plan, again, model, evaluated)


def _fitting(model: nn.Module, inputs: Inputs, dtype: torch.dtype) -> Inputs | None:
    """The inputs, or two samples or one, whose training step keeps at most `MOST` bytes; None if one keeps more."""
    for some in (inputs, _few(inputs, 2), _few(inputs, 1)):
        if _kept_bytes(model, some, dtype) <= MOST:
            return some
    return None


def _few(inputs: Inputs, most: int) -> Inputs:
    """At most `most` of the samples."""
    size = size_of(inputs)
    return inputs.map(lambda x: x[:most] if x.dim() and x.shape[0] == size else x)


class _Weighted:
    """Training steps whose loss weighs each output by fixed random numbers, over its size in the first network."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.factors: list[Tensor] | None = None

    def step(self, network: nn.Module, seed: int = 0, inputs: Inputs | None = None) -> Step:
        """Runs forward and backward in training mode. Raises _NoStep without gradients, and what the network raises."""
        network = skeleton_copy(network)
        leaves = {key: t.detach().clone() for key, t in tensors(network).items()}
        replace_tensors(network, leaves)
        with _training(network), seeded(seed), plain_transformers(), torch.enable_grad():
            state = tensors(network)
            parameters = {key: p for key, p in network.named_parameters() if p.is_floating_point() or p.is_complex()}
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            arguments = (inputs or self.inputs).map(lambda x: x.detach().clone())
            results = outputs(arguments.call(network))
            gradients = self._gradients(results, parameters)
        buffers = {key: t.detach() for key, t in tensors(network).items() if key in state and key not in parameters}
        strip = "model." if hasattr(network, "counted") else ""
        return Step(
            {f"output {i}" if len(results) > 1 else "output": x.detach() for i, x in enumerate(results)},
            {key.removeprefix(strip): g for key, g in gradients.items()},
            {key.removeprefix(strip): b for key, b in buffers.items()},
        )

    def _gradients(self, results: list[Tensor], parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        real = [torch.view_as_real(x) if x.is_complex() else x for x in results]
        if self.factors is None:
            self.factors = [_factors(x) for x in real]
        loss: Tensor | None = None
        for x, factors in zip(real, self.factors, strict=False):
            if x.requires_grad and x.shape == factors.shape:
                term = (torch.where(torch.isfinite(x), x, 0) * factors.to(x)).sum()
                loss = term if loss is None else loss + term
        if loss is None:
            raise _NoStep("no output has a gradient")
        leaves = list(parameters.values())
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        if all(g is None for g in gradients):
            raise _NoStep("no gradient reaches a weight")
        return {
            key: torch.zeros_like(p) if g is None else g.detach()
            for (key, p), g in zip(parameters.items(), gradients, strict=True)
        }


def _factors(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(x.dim())
    values = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    if not x.is_floating_point() or not x.numel():
        return values
    size = torch.where(torch.isfinite(x.detach()), x.detach(), 0).double().square().mean().sqrt().cpu()
    return values / (size if size > 0 else 1.0) / x.numel() ** 0.5


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Puts a model into training mode, except for what only drops."""
    modes = [(module, module.training) for _, module in walk(model)]
    model.train()
    for _, module in walk(model):
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ in _DROPS:
            module.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _add(comparison: Comparison, expected: Step, result: Step, batch: int, noise: Noise | None) -> None:
    a, b = expected.flat(), result.flat()
    if len(expected.outputs) != len(result.outputs):
        comparison.fail(f"{len(expected.outputs)} outputs against {len(result.outputs)} in training mode")
        return
    names = [name for name in a if name in b]
    every = {name: i for i, name in enumerate(a)}
    chosen = (lambda: [noise()[every[name]] for name in names]) if noise is not None else None
    comparison.add([a[n] for n in names], [b[n] for n in names], batch, chosen, names=names, pooled=True)


def _noise(weights: _Weighted, reference: nn.Module, inputs: Inputs, expected: Step, plan: Plan) -> Noise:
    """Makes a function that measures how far rounding alone moves outputs, gradients and statistics: at least an eps of
    the largest gradient, as a gradient that is zero but for rounding may be that large."""
    cached: list[list[Tensor]] = []

    def measure() -> list[Tensor]:
        if not cached:
            flat = expected.flat()
            moved = [torch.zeros_like(x, dtype=torch.float64, device="cpu") for x in flat.values()]
            for sample in range(SAMPLES):
                generator = torch.Generator().manual_seed(sample)
                copy = skeleton_copy(reference)
                replace_tensors(copy, {k: nudged(t.detach(), generator) for k, t in tensors(reference).items()})
                step = weights.step(copy, inputs=inputs.map(lambda x, g=generator: nudged(x, g))).kept(plan)
                moved = [
                    torch.maximum(m, distance(a, b))
                    for m, a, b in zip(moved, flat.values(), step.flat().values(), strict=True)
                ]
            largest = max((float(g.abs().max()) for g in expected.gradients.values() if g.numel()), default=0.0)
            for i, (name, tensor) in enumerate(flat.items()):
                if name.startswith("gradient") and (tensor.is_floating_point() or tensor.is_complex()):
                    moved[i] = moved[i].clamp_min(torch.finfo(tensor.dtype).eps * largest)
            cached.append(moved)
        return cached[0]

    return measure


def _explain(
    comparison: Comparison,
    plan: Plan,
    again: Callable[..., Step],
    model: nn.Module,
    evaluated: Callable[[nn.Module], list[Tensor] | None],
) -> None:
    """Withdraws a difference that is not the cut's, as the reference itself is not one in training mode."""
    first, detail = again(masked(model, plan)), comparison.detail
    if _differ(first, again(masked(model, plan), seed=1)):
        comparison.withdraw(f"the network draws random numbers in training mode ({detail})")
        return
    keys = _unseen(model, plan, evaluated)
    if keys and _differ(first, again(refilled(model, plan, keys))):
        comparison.withdraw(f"{_EVALUATION_ONLY} ({detail})")


def _differ(a: Step, b: Step) -> bool:
    comparison = Comparison(tolerance=1e-7)
    _add(comparison, a, b, 1, None)
    return comparison.failed


def _unseen(model: nn.Module, plan: Plan, evaluated: Callable[[nn.Module], list[Tensor] | None]) -> list[str]:
    """The keys of tensors whose removed places do not matter in evaluation."""
    expected = evaluated(refilled(model, plan, []))

    def unseen(keys: list[str]) -> bool:
        comparison, results = Comparison(tolerance=1e-9), evaluated(refilled(model, plan, keys))
        if expected is not None and results is not None:
            comparison.add(expected, results, 1)
        return comparison.passed

    keys = list(plan.keep)
    if not unseen(keys):
        keys = [key for key in keys if unseen([key])]
    return keys if unseen(keys) else []
