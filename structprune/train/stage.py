"""Training as a stage of a run: shown, logged, and done once whatever interrupts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from ..data import Data
from ..errors import RecipeError
from ..modules import replace_tensors, tensors
from ..progress import Reporter
from ..store import atomic_files
from ..tasks import Task
from .loop import fit
from .spec import TrainSpec


def train_stage(
    model: nn.Module,
    spec: TrainSpec,
    data: Data,
    task: Task,
    folder: Path,
    what: str,
    seed: int,
    reporter: Reporter,
    going_on: bool = False,
) -> Path:
    """Trains `model` in place, and writes its weights into `folder`.

    If the weights are there already, only read them; if training was interrupted, go on.

    Args:
        model: the network; its parameters and buffers change.
        spec: the recipe's `train` or `finetune`.
        data: what to train on, with labels.
        task: the loss and the metrics.
        folder: gets the weights and, meanwhile, the checkpoint.
        what: "dense" or "slim".
        seed: decides order, dropout and augmentation.
        reporter: shows the progress.
        going_on: whether the network came with weights, which the stage's line then mentions.

    Returns:
        The file of the weights.

    Raises:
        RecipeError: there is no training data with labels.
        TrainingError: training failed or diverged.
    """
    if data.train is None or not data.labelled:
        raise RecipeError(f"training the {what} network needs training data with labels: see `data`")
    final = folder / f"{what}.safetensors"
    if final.is_file():
        replace_tensors(model, load_file(final))
        return final
    verb = "training" if what == "dense" else "fine-tuning"
    start = ", on from the weights that it came with" if going_on else ""
    reporter.stage(f"{verb} the {what} network{start}, {spec.epochs} epoch{'s' if spec.epochs > 1 else ''}")
    notes: list[str] = []
    with reporter.bar(verb) as update:

        def progress(step: int, steps: int, shown: dict[str, float]) -> None:
            update(step / steps, f"epoch {shown['epoch']:.0f}, loss {shown['loss']:.3f}")
            if step % (steps // spec.epochs) == 0:
                reporter.event("epoch", network=what, **shown)

        checkpoint = folder / f"{what}.training.safetensors"
        options: dict[str, Any] = {"progress": progress, "workers": data.workers, "what": f"the {what} network"}
        options |= {"validation": data.validation, "tell": notes.append}
        fit(model, data.train, spec, task=task, seed=seed, checkpoint=checkpoint, **options)
    for note in notes:
        reporter.stage(note)
    held = {key: tensor.detach().contiguous() for key, tensor in tensors(model).items()}
    atomic_files.write(final, lambda path: save_file(held, path))
    return final
