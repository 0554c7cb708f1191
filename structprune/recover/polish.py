"""A short training without labels: the slim network's blocks learn to make what the dense network's blocks make.

Inner features as targets are from Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015. Here the plan says which
of the dense network's channels the slim one still has, so that they are compared one by one, without a regressor
between. Each epoch offers two sets of weights, its last and their average over its steps (Polyak & Juditsky, SIAM
Journal on Control and Optimization 1992), as steps of a high learning rate go to and fro around what they look for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..calibration import Batch, Observer, WritableNetwork
from ..calibration.batches import BATCH
from ..calibration.observer import See
from ..errors import RecipeError
from ..graph.recorded_calls import CallSite, call_lives, result_bytes
from ..memory_limits import amount
from ..modules import evaluating
from ..ops import Inputs, OpMode, leaves_of, op_name, outputs
from ..recipe.recovery import RECOVERIES, PolishSpec
from ..tasks.distance import relative_square
from .comparison_points import ComparisonPoint, find_points
from .recovery import Mending, Recovery
from .sample_views import LEAST, Samples, other_views

DTYPES = (torch.float32, torch.float64)  # of parameters that small steps change
WARM_UP = 0.1  # the share of the steps in which the learning rate rises
KEPT = 1 / 8  # of the memory, for outputs that are needed after each epoch
PATIENCE = 4  # epochs without a better one on the held-out samples


class _Comparison(OpMode):
    """While the slim network runs, takes the distances from what the dense one made at the points.

    With `apart`, no gradient goes back through a point: each block learns from its own result alone, on what the blocks
    before it make by now.
    """

    def __init__(self, targets: dict[CallSite, Tensor], *, apart: bool, copies: bool) -> None:
        super().__init__()
        self.targets, self.apart, self.copies = targets, apart, copies
        self.calls: Counter[str] = Counter()
        self.distances: list[Tensor] = []

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = op_name(op)
        site = (name, self.calls[name])
        self.calls[name] += 1
        result = op(*args, **kwargs)
        target = self.targets.get(site)
        if target is None:
            return result
        self.distances.append(relative_square(result, target))
        if self.apart:
            result = result.detach()
        return result.clone() if self.copies else result


def _imitation(slim: Any, dense: Any, scores: bool) -> Tensor:
    """How far outputs are from the dense network's: each tensor's `relative_square`, and where one of two axes is
    class scores (`scores`), the KL divergence of their probabilities as well."""
    ours, theirs = outputs(slim), outputs(dense)
    pairs = [pair for pair in zip(ours, theirs, strict=True) if pair[1].is_floating_point() and pair[1].numel()]
    total = torch.stack([relative_square(a, b) for a, b in pairs]).mean()
    if scores and len(pairs) == 1 and pairs[0][0].dim() == 2 and pairs[0][0].shape[1] > 1:
        a, b = (x.float().log_softmax(1) for x in pairs[0])
        total = total + F.kl_div(a, b, log_target=True, reduction="batchmean")
    return total


class _Polish:
    """The training of one slim network."""

    def __init__(self, spec: PolishSpec, mending: Mending, samples: Samples, size: int) -> None:
        self.spec, self.mending, self.samples, self.size = spec, mending, samples, size
        self.dense, self.slim = mending.dense.module, mending.slim.module
        self.points = find_points(mending.dense, mending.slim, mending.plan, mending.batches[0].inputs)
        self.scores = mending.task is None or mending.task.scores_classes
        self.copies = any(life.writes for net in (mending.dense, mending.slim) for life in call_lives(net.recording))
        self.generator = torch.Generator().manual_seed(mending.seed)
        self.targets: dict[int, Any] = {}  # the dense network's outputs of batches that are held out

    def unseen(self) -> Iterator[tuple[Inputs, Any]]:
        """The held-out samples as they are, and as other views, which no recovery before has seen; each with what the
        dense network makes of them, of which as much is kept as the memory allows."""
        generator = torch.Generator().manual_seed(self.mending.seed + 1)
        views = (
            view
            for inputs in self.samples.unseen(self.size)
            for view in (inputs, *([other_views(inputs, generator)] if self.spec.augment else []))
        )
        for number, inputs in enumerate(views):
            target = self.targets.get(number)
            if target is None:
                target = inputs.call(self.dense)
                held = [outputs(result) for result in (*self.targets.values(), target)]
                if _bytes(leaves_of(held)) <= KEPT * self.mending.memory:
                    self.targets[number] = target
            yield inputs, target

    def run(self) -> tuple[float, float]:
        """Trains. Returns the loss on the held-out samples before and after; the network then is the better one."""
        with _trainable(self.mending.slim, self.spec.weights) as parameters:
            before = self.loss_on_unseen()
            kept = [parameter.detach().clone() for parameter in parameters]
            try:
                best = self._improve(parameters, kept, before)
            finally:  # also where memory runs out: what an epoch was in the middle of is not handed on
                _write(kept, parameters)
        return before, best

    def _improve(self, parameters: list[nn.Parameter], kept: list[Tensor], before: float) -> float:
        """Trains; `kept` becomes the best weights, whose loss on the held-out samples is returned."""
        spec, best = self.spec, before
        optimizer = torch.optim.Adam(parameters, lr=spec.lr)
        steps = (spec.block_epochs + spec.epochs) * self.samples.steps(self.size)
        averages = [parameter.detach().clone() for parameter in parameters]
        worse = step = 0
        for epoch in range(spec.block_epochs + spec.epochs):
            for count, inputs in enumerate(self.samples.epoch(self.size, self.generator), 1):
                optimizer.param_groups[0]["lr"] = spec.lr * _rate((step + 0.5) / steps)
                self.mending.progress(step / steps)
                optimizer.zero_grad()
                loss = self.loss(inputs, apart=epoch < spec.block_epochs)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                for average, parameter in zip(averages, parameters, strict=True):
                    average.lerp_(parameter.detach(), 1 / count)
            worse += 1
            last = [parameter.detach().clone() for parameter in parameters]
            for values in (averages, last):  # the last come second, as training goes on from them
                _write(values, parameters)
                now = self.loss_on_unseen()
                if now < best:
                    best, worse = now, 0
                    _write(values, kept)
            if worse >= PATIENCE or not math.isfinite(now):
                break
        return best

    def loss(self, inputs: Inputs, *, apart: bool) -> Tensor:
        """How far the slim network is from the dense one on other views of some samples: at the points, and unless each
        block is to learn by itself, in the end."""
        if self.spec.augment:
            inputs = other_views(inputs, self.generator)
        targets: dict[CallSite, Tensor] = {}

        def see(point: ComparisonPoint) -> See:
            def keep(args: tuple[Any, ...], result: Tensor) -> None:
                targets[point.site] = point.as_slim(result)

            return keep

        with evaluating(self.dense), Observer({point.site: see(point) for point in self.points}):
            target = inputs.call(self.dense)
        with _Comparison(targets, apart=apart, copies=self.copies) as comparison:
            result = inputs.call(self.slim)
        if not comparison.distances:
            return _imitation(result, target, self.scores)
        between = torch.stack(comparison.distances).mean()
        return between if apart else between + _imitation(result, target, self.scores)

    def loss_on_unseen(self) -> float:
        """The mean loss of the outputs on the samples that are held out."""
        losses = []
        with evaluating(self.slim), evaluating(self.dense):
            for inputs, target in self.unseen():
                losses.append(float(_imitation(inputs.call(self.slim), target, self.scores)))
        return sum(losses) / len(losses)


def _write(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for value, place in zip(values, into, strict=True):
            place.copy_(value)


def _rate(share: float) -> float:
    """The learning rate when a share of the steps is done, of the highest: a line up, and half a cosine down."""
    if share < WARM_UP:
        return share / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))


@contextmanager
def _trainable(slim: WritableNetwork, which: str) -> Iterator[list[nn.Parameter]]:
    """The parameters of a network, with gradients but in evaluation mode: BatchNorms keep their statistics, and nothing
    is dropped. Whether each trains is again as before in the end."""
    parameters = list(_parameters(slim, which).values())
    trained = [parameter.requires_grad for parameter in parameters]
    with evaluating(slim.module), torch.enable_grad():
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            yield parameters
        finally:
            for parameter, before in zip(parameters, trained, strict=True):
                parameter.requires_grad_(before)
                parameter.grad = None


def _parameters(slim: WritableNetwork, which: str) -> dict[str, nn.Parameter]:
    """Those that are trained, by their keys: all, or `scales`, the vectors: scales and shifts of norms, and biases."""
    known = {key: x for key, x in slim.state.items() if isinstance(x, nn.Parameter) and x.dtype in DTYPES}
    return known if which == "full" else {key: x for key, x in known.items() if x.dim() <= 1}


def step_size(slim: WritableNetwork, example: Batch, memory: float, which: str = "full") -> int | str:
    """How many samples a step may have, or why there can be none.

    Args:
        slim: the network, recorded on `example`.
        example: some samples.
        memory: bytes that may come on top of the network.
        which: which of its parameters are trained, as in a recipe.
    """
    weights = 6 * _bytes(_parameters(slim, which).values())  # gradients, two moments, averages, the best, the last
    each = result_bytes(slim.recording) / example.images
    if weights + each > memory:
        return f"a step of one sample takes {amount(weights + each)}, and memory allows {amount(memory)}"
    return min(BATCH, int((memory - weights) // max(each, 1)))


def _bytes(values: Iterable[Any]) -> int:
    return sum(x.numel() * x.element_size() for x in values if isinstance(x, Tensor))


def _mend(spec: PolishSpec, mending: Mending) -> int:
    if torch.is_inference_mode_enabled():
        raise RecipeError("polish trains the network, which torch.inference_mode() forbids: call recover outside of it")
    notes = mending.slim.notes
    if not _parameters(mending.slim, spec.weights):
        what = "parameters" if spec.weights == "full" else "scales, shifts or biases"
        notes.append(f"polish changed nothing: the network has no {what} in float32 or float64")
        return 0
    samples = Samples(mending.batches)
    if not samples.held_out or not samples.trained_on:
        fewest = f"{LEAST} calibration images or more" if samples.apart else f"{LEAST} batches, or images of one size"
        notes.append(f"polish changed nothing: some samples are held out, so give {fewest}")
        return 0
    size = step_size(mending.slim, mending.batches[0], mending.memory, spec.weights)
    if isinstance(size, str):
        notes.append(f"polish changed nothing: {size}")
        return 0
    training = _Polish(spec, mending, samples, size)
    if not training.points:
        notes.append("polish compared the outputs alone: no blocks hand on a tensor of which the plan says what stays")
    before, after = training.run()
    if not after < before:
        notes.append(
            f"polish changed nothing: no epoch was better on {len(samples.held_out)} held-out samples than before "
            f"({before:.3g}): give more calibration images, or a lower lr"
        )
        return 0
    notes.append(
        f"polish: on {len(samples.held_out)} held-out samples the distance from the dense network's outputs fell from "
        f"{before:.3g} to {after:.3g}"
    )
    return len({key.rpartition(".")[0] for key in _parameters(mending.slim, spec.weights)})


RECOVERIES.add(
    Recovery("polish", "a short training on calibration images, towards the dense network's blocks", PolishSpec, _mend)
)
