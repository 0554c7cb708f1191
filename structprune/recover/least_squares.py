"""Least squares of a layer's weights, so that on what reaches it by now it makes what the dense network's layer made.

Layer by layer from the input: the inputs are those of the slim network as mended so far, the wanted outputs are the
dense network's own (the asymmetric reconstruction of He et al., Channel Pruning for Accelerating Very Deep Neural
Networks, ICCV 2017, section 3.2; one scale a channel is Luo et al., ThiNet, ICCV 2017, section 3.2, equation 7).
Layers that keep all their inputs are fitted as well, as these are others by now; where a layer is added to something,
what that lacks is made up for (see `sums`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..calibration import Batch, Observer, Sweep, WritableNetwork, choose, take
from ..calibration.layout import channels_last
from ..calibration.windows import blocks_of, choose_places, outputs_at, row_bytes
from ..graph.channel_norms import ChannelNorm
from ..graph.layers import Layer
from ..graph.recurrent_layers import RecurrentLayer, Sequences
from ..graph.sums import Sum, find_sums
from ..memory_limits import allocation_failed, amount, parts
from ..modules import evaluating
from ..recipe.recovery import RECOVERIES, LeastSquaresSpec
from .attention import Mixtures, compensate
from .layers_behind import layers_to_fit, unreached
from .moments import FOLDS, Moments, Solution, full, ridge_solution, scales
from .norms import NormTask, fit_norm, norm_tasks
from .recovery import Mending, Recovery
from .recurrent import RecurrentTask, fit_recurrent, recurrent_tasks
from .refits import FEW, WINDOWS, Task, in_passes, task_of
from .rows import FromRows, rows_solution, scales_from_rows
from .slim_outputs import keep_channels, keeps, slim_outputs, undo_norm

Fitted = Task | NormTask | RecurrentTask
Place = Layer | ChannelNorm | RecurrentLayer


def refit(mending: Mending, spec: LeastSquaresSpec, mixtures: Mixtures | None = None) -> dict[str, Solution]:
    """Fits every layer that lost inputs or states, and every LayerNorm that lost channels, and writes them to the slim
    network; with all weights also layers that lost nothing, as far as what they get has changed.

    Args:
        mending: what it works with. A layer whose second moments do not fit into its memory is fitted from fewer rows
            by their products (see `rows`), and one for which nothing fits, or an allocation fails, keeps its weights;
            notes say which.
        spec: its keys in a recipe.
        mixtures: what layers of heads that lost channels are to make of them.

    Returns:
        What was found for each, by the keys of their weights.
    """
    dense, slim, plan, memory = mending.dense, mending.slim, mending.plan, mending.memory
    per_channel = spec.weights == "scales"
    batches = channels_last(dense, mending.batches, memory)
    images = sum(batch.images for batch in batches)
    tasks: list[Fitted] = [
        *norm_tasks(slim, plan, images, memory),
        *recurrent_tasks(dense, slim, plan, images, memory),
    ]
    if spec.fits_behind and len(batches) == 1:
        slim.notes.append(
            "layers that lost no inputs keep their weights, as one batch can't tell whether another fit is better: "
            "give calibration images in two batches or more"
        )
    chosen = layers_to_fit(slim, plan, behind_cut=spec.fits_behind and len(batches) > 1)
    sums = _find_shortcuts(dense, slim, chosen) if spec.fits_sums else {}
    for layer in chosen:
        refit_of = task_of(
            layer, dense, slim, images, per_channel=per_channel, memory=memory, targets=1 + (layer in sums)
        )
        if isinstance(refit_of, Task):
            tasks.append(refit_of)
        else:
            slim.notes.append(refit_of)
    tasks.sort(key=lambda task: task.layer.place)
    sweep = slim.sweep(batches, memory)
    slim.notes += unreached(slim, plan)
    fits = _Fits(mending, spec, batches, sweep, mixtures, sums)
    solutions: dict[str, Solution] = {}
    for tasks_of_pass in in_passes(tasks, memory):
        targets = fits.wanted(tasks_of_pass)
        for task in tasks_of_pass:
            mending.progress(tasks.index(task) / len(tasks))
            try:
                solutions[task.layer.weight] = fits.fit(task, targets)
            except Exception as error:
                if not allocation_failed(error):
                    raise
                slim.notes.append(
                    f"{task.describe()} keeps its weights: there was no memory left to refit it, within a bound of "
                    f"{amount(memory)}. Set a lower bound (memory), or give fewer calibration images"
                )
    slim.notes += _notes([task for task in tasks if isinstance(task, Task)], solutions, sweep, memory)
    return solutions


def _notes(tasks: list[Task], solutions: dict[str, Solution], sweep: Sweep, memory: float) -> list[str]:
    notes = []
    done = [task for task in tasks if task.layer.weight in solutions]
    wide = [task for task in done if task.from_rows]
    if wide:
        worst = max(wide, key=lambda task: task.moments)
        notes.append(
            f"{len(wide)} of {len(done)} layers were refitted from at most {worst.rows} rows by their products, as the "
            f"moments of all inputs would take more than memory ({amount(memory)}) allows: {amount(worst.moments)} for "
            f"{worst.describe()}"
        )
    few = [task for task in done if not task.from_rows and solutions[task.layer.weight].rows < FEW * task.inputs]
    if few:
        task = min(few, key=lambda task: solutions[task.layer.weight].rows / task.inputs)
        solution = solutions[task.layer.weight]
        notes.append(
            f"{len(few)} of {len(tasks)} layers had fewer than two rows for each unknown (the worst, "
            f"{task.layer.module}, {solution.rows:.0f} rows for {task.inputs}; ridge {solution.ridge:g}): give more "
            "calibration images"
        )
    kept = [key for key, solution in solutions.items() if math.isinf(solution.ridge)]
    if kept:
        notes.append(f"{len(kept)} of {len(solutions)} layers keep their weights, as no fit was better on unseen rows")
    if sweep.anew:
        notes.append(
            f"what layers make of {sweep.anew} of {len(sweep.batches)} batches was computed anew for each layer, as "
            f"keeping it takes more than memory ({amount(memory)}) allows"
        )
    return notes


def _find_shortcuts(
    dense: WritableNetwork, slim: WritableNetwork, layers: Sequence[Layer]
) -> dict[Layer, tuple[Sum, Sum]]:
    """The sums that slim layers add to, in the dense network and in the slim one, whose calls may be others."""
    weights = {layer.weight for layer in layers}
    wide = find_sums(dense.recording, [layer for layer in dense.layers if layer.weight in weights])
    there = {layer.weight: at for layer, at in wide.items()}
    here = find_sums(slim.recording, layers)
    return {layer: (there[layer.weight], at) for layer, at in here.items() if layer.weight in there}


class _Fits:
    """Fits one layer after the other, as the sweep comes to it."""

    def __init__(
        self,
        mending: Mending,
        spec: LeastSquaresSpec,
        batches: Sequence[Batch],
        sweep: Sweep,
        mixtures: Mixtures | None,
        sums: Mapping[Layer, tuple[Sum, Sum]],
    ) -> None:
        self.dense, self.slim, self.plan = mending.dense, mending.slim, mending.plan
        self.seed, self.memory = mending.seed, mending.memory
        self.per_channel, self.ridge = spec.weights == "scales", spec.ridge
        self.batches, self.sweep, self.mixtures, self.sums = batches, sweep, mixtures, sums
        self.folds = min(FOLDS, len(batches))

    def generator(self, layer: Place, batch: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + 7919 * layer.place + 104729 * batch)

    def fold(self, batch: int) -> int:
        return batch * self.folds // len(self.batches)

    def wanted(self, tasks: Sequence[Fitted]) -> dict[Place | Sum, list[Any]]:
        """What the dense network's layers make at the sampled places, for each batch, and the other summands of sums
        there; what its recurrent ones get."""
        sums = [
            (task, self.sums[task.layer][0]) for task in tasks if isinstance(task, Task) and task.layer in self.sums
        ]
        results: dict[Place | Sum, list[Any]] = {task.layer: [] for task in tasks}
        results |= {at: [] for _, at in sums}

        def see(task: Fitted, batch: int) -> Callable[[tuple[Any, ...], Any], None]:
            def keep(args: tuple[Any, ...], result: Tensor) -> None:
                if isinstance(task, NormTask):
                    results[task.layer].append(task.tokens(result, self.generator(task.layer, batch)))
                    return
                if isinstance(task, RecurrentTask):
                    results[task.layer].append(task.layer.read(args))
                    return
                results[task.layer].append(self.rows_of(task, batch, result) - _computed_bias(task.layer, args))

            return keep

        def see_sum(task: Task, at: Sum, batch: int) -> Callable[[tuple[Any, ...], Any], None]:
            return lambda args, result: results[at].append(self.rows_of(task, batch, args[at.other]))

        with evaluating(self.dense.module):
            for b, batch in enumerate(self.batches):
                watch = {task.layer.site: see(task, b) for task in tasks}
                with Observer(watch | {at.site: see_sum(task, at, b) for task, at in sums}):
                    batch.inputs.call(self.dense.module)
        return results

    def rows_of(self, task: Task, batch: int, x: Tensor) -> Tensor:
        """What a tensor of the shape of a layer's outputs holds at the sampled places of a batch."""
        axis = task.layer.axis
        places = math.prod(x.shape[1:]) // x.shape[axis]
        chosen = choose_places(len(x), places, task.each, self.generator(task.layer, batch))
        return outputs_at(x, axis, *chosen)

    def find_lack(self, task: Task, there: list[Tensor]) -> dict[int, Tensor]:
        """What the other summand lacks by now of the dense network's at the sampled places, for each batch."""
        lacks = {}
        layer, (_, at) = task.layer, self.sums[task.layer]

        def see(batch: int, args: tuple[Any, ...]) -> None:
            left = keep_channels(layer, self.dense, self.plan, there[batch])
            there[batch] = left.new_empty(0)
            lack = _whole(left) - _whole(self.rows_of(task, batch, args[at.other]))
            lacks[batch] = undo_norm(layer, self.slim, lack)

        self.sweep.go(layer.place)
        self.sweep.look({at.place: see})
        return lacks

    def target(self, layer: Layer, rows: Tensor, lack: Tensor | None) -> Tensor:
        """What the slim layer is to make (rows, outputs) where the dense one made `rows`, with what sums lack."""
        if self.mixtures is not None and layer.weight in self.mixtures.layers:  # which no BatchNorm follows
            return self.mixtures.layers[layer.weight].of(rows.mT).mT
        y = slim_outputs(layer, self.dense, self.slim, self.plan, rows).to(_whole(rows))
        y = y if lack is None else y + lack.to(y)
        if layer.bias and not self.slim.can_shift(layer):
            y = y - self.slim.state[layer.bias]  # which others share, so that it stays
        return y

    def fit(self, task: Fitted, results: dict[Place | Sum, list[Any]]) -> Solution:
        """Fits and writes what the task is about, and takes what the dense network made there out of `results`."""
        targets = results.pop(task.layer)
        if isinstance(task, RecurrentTask):
            return self.recurrent(task.layer, targets)
        if isinstance(task, NormTask):
            return self.norm(task, targets)
        sums = self.sums.get(task.layer)
        lacks = self.find_lack(task, results.pop(sums[0])) if sums is not None else {}
        for batch, rows in enumerate(targets):
            targets[batch] = self.target(task.layer, rows, lacks.pop(batch, None))
        return self.by_rows(task, targets) if task.from_rows else self.by_moments(task, targets)

    def recurrent(self, layer: RecurrentLayer, there: list[Sequences]) -> Solution:
        here: list[Sequences] = []
        self.sweep.go(layer.place, lambda batch, args: here.append(layer.read(args)))
        folds = [self.fold(batch) for batch in range(len(here))]
        networks = (self.dense, self.slim, self.plan)
        return fit_recurrent(*networks, layer, there, here, folds, per_channel=self.per_channel, ridge=self.ridge)

    def norm(self, task: NormTask, targets: list[Tensor]) -> Solution:
        norm, rows = task.layer, []
        kept = keeps(self.plan, norm.weight, 0)

        def see(batch: int, args: tuple[Any, ...]) -> None:
            x = task.tokens(norm.call_with(args), self.generator(norm, batch))
            rows.append((self.fold(batch), x, targets[batch][:, kept]))

        self.sweep.go(norm.place, see)
        return fit_norm(self.slim, norm, rows, self.ridge)

    def by_moments(self, task: Task, targets: list[Tensor]) -> Solution:
        layer, slim = task.layer, self.slim
        weight, intercept = slim.state[layer.weight].detach(), slim.can_shift(layer)
        origin: list[Tensor] = []
        folds: list[Moments | None] = [None] * self.folds

        def see(batch: int, args: tuple[Any, ...]) -> None:
            call = layer.read(args)
            image, place = choose(call, task.each, self.generator(layer, batch))
            y = targets[batch]
            targets[batch] = y[:0]
            for part in parts(len(image), row_bytes(call), self.memory * WINDOWS):
                x = blocks_of(_whole(take(call, image[part], place[part])), weight)
                out = _whole(y[part]).reshape(-1, len(x), task.outputs).transpose(0, 1)
                if not origin:  # about which nothing cancels
                    origin.extend(t.mean(1, keepdim=True) * intercept for t in (x, out))
                moments = folds[self.fold(batch)]
                if moments is None:
                    moments = folds[self.fold(batch)] = Moments.zeros(
                        len(x), task.inputs, task.outputs, intercept=intercept, device=x.device
                    )
                moments.see(x - origin[0], out - origin[1])

        self.sweep.go(layer.place, see)
        ox, oy = (value.squeeze(1).double() for value in origin)
        bias = self.bias(layer)
        start = weight.double().reshape(len(ox), -1, task.inputs)
        factors = functools.partial(scales, places=math.prod(weight.shape[2:]))
        solves = (factors,) if self.per_channel else (full, factors) if task.few else (full,)
        solution = ridge_solution(
            [fold for fold in folds if fold is not None],
            start,
            bias.reshape(len(ox), -1) - oy + _times(start, ox),
            self.ridge,
            *solves,
        )
        if math.isfinite(solution.ridge):
            self.write(layer, solution.weight, (solution.bias + oy - _times(solution.weight, ox)).flatten())
        return solution

    def by_rows(self, task: Task, targets: list[Tensor]) -> Solution:
        layer, slim = task.layer, self.slim
        self.sweep.go(layer.place)
        rows = [self.chosen(task, batch, args) for batch, args in self.sweep.arguments()]
        y = torch.cat([_whole(target) for target in targets])
        folds = torch.cat([torch.full((len(at[0]),), self.fold(batch)) for batch, at in enumerate(rows)])
        start = _whole(slim.state[layer.weight].detach()).reshape(task.blocks, task.outputs, task.inputs)
        bias = self.bias(layer).reshape(task.blocks, -1)
        fits = []
        for block, out in enumerate(y.split(task.outputs, dim=1)):
            fit: Callable[..., FromRows] = rows_solution
            if self.per_channel:
                places, drawn = math.prod(slim.state[layer.weight].shape[2:]), self.generator(layer, block)
                fit = functools.partial(scales_from_rows, places=places, generator=drawn)
            windows = functools.partial(self.windows, task, rows, block)
            fits.append(fit(windows, out, start[block], bias[block], folds, self.ridge, slim.can_shift(layer)))
        ridge = min(one.ridge for one in fits)
        if math.isfinite(ridge):
            self.write(layer, torch.stack([one.weight for one in fits]), torch.cat([one.bias for one in fits]))
        before, after = (sum(getattr(one, name) for one in fits) / len(fits) for name in ("before", "after"))
        return Solution(start, bias, ridge, before, after, float(len(y)))

    def chosen(self, task: Task, batch: int, args: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        return choose(task.layer.read(args), task.each, self.generator(task.layer, batch))

    def windows(self, task: Task, rows: list[tuple[Tensor, Tensor]], block: int) -> Iterator[tuple[slice, Tensor]]:
        """The windows of all rows, a few channels at a time."""
        weight = self.slim.state[task.layer.weight]
        channels, places = weight.shape[1], math.prod(weight.shape[2:])
        each = 4.0 * places * 4 * sum(len(image) for image, _ in rows)
        for part in parts(channels, each, self.memory * WINDOWS):
            at = slice(block * channels + part.start, block * channels + part.stop)
            calls = ((batch, task.layer.read(args)) for batch, args in self.sweep.arguments())
            windows = [_whole(take(call, *rows[batch], at)).flatten(1) for batch, call in calls]
            yield slice(part.start * places, part.stop * places), torch.cat(windows)

    def bias(self, layer: Layer) -> Tensor:
        """The offsets that may be shifted, in float64."""
        weight = self.slim.state[layer.weight]
        if layer.bias and self.slim.can_shift(layer):
            return self.slim.state[layer.bias].detach().double()
        return torch.zeros(len(weight), dtype=torch.float64, device=weight.device)

    def write(self, layer: Layer, weight: Tensor, bias: Tensor) -> None:
        before = self.bias(layer)
        self.slim.write(layer.weight, weight)
        if self.slim.can_shift(layer):
            self.slim.shift(layer, bias - before)


def _computed_bias(layer: Layer, args: Sequence[Any]) -> Tensor | float:
    """The bias that a call gets where that is no parameter: the slim network adds its own."""
    place = layer.argument_place("bias")
    return args[place] if layer.computes_bias and place is not None else 0.0


def _whole(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _times(weight: Tensor, x: Tensor) -> Tensor:
    return (weight @ x.unsqueeze(2)).squeeze(2)


def _mend(spec: LeastSquaresSpec, mending: Mending) -> int:
    networks = (mending.dense, mending.slim, mending.plan, mending.batches)
    mixtures = None
    if spec.weights == "full" and spec.attention:
        mixtures = compensate(*networks, ridge=spec.ridge, memory=mending.memory)
    solutions = refit(mending, spec, mixtures)
    changed = {key for key, solution in solutions.items() if math.isfinite(solution.ridge)}
    return len(changed | (mixtures.changed if mixtures is not None else set()))


RECOVERIES.add(
    Recovery(
        "least_squares", "weights behind the cut are fitted to the dense network's outputs", LeastSquaresSpec, _mend
    )
)
