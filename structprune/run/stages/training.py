"""Training of the dense network, and fine-tuning of the slim one. Weights are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ...data import Data
from ...errors import StoreError
from ...modules import replace_tensors, skeleton_copy, tensors
from ...store import atomic_files
from ...tasks import Task
from ...train import train_stage
from ...train.method import code_of
from ...train.spec import TrainSpec
from ..stage import Work, stage


def _spec(spec: TrainSpec | None) -> dict[str, Any]:
    """A training, with the text of what it takes from the user's files."""
    return {} if spec is None else {"spec": spec, "code": code_of(spec.methods)}


@stage(
    "train",
    after="graph",
    needs=("model", "training", "task"),
    first=("graph",),  # what can't be pruned is said before it is trained
    makes=("dense",),
    spec=lambda recipe: {**_spec(recipe.train), "going_on": recipe.model.trained},
    when=lambda recipe: recipe.train is not None,
    read=lambda work, model: with_weights(model, work.folder / "dense.safetensors"),
    reads=("model",),
    title="the trained dense network",
)
def train(work: Work, model: nn.Module, training: Data, task: Task) -> None:
    """Trains the model in place, which the graph's weights are too."""
    _fit(work, model, training, task, "dense")


@stage(
    "finetune",
    after="judge_recovered",
    needs=("dense", "slim", "training", "task", "gates.*"),
    makes=("slim",),
    spec=lambda recipe: {**_spec(recipe.finetune), "going_on": False},
    when=lambda recipe: recipe.finetune is not None,
    read=lambda work, slim: with_weights(own_copy(slim), work.folder / "slim.safetensors"),
    reads=("slim",),
    sound_only=True,
    title="the fine-tuned slim network",
)
def finetune(work: Work, dense: nn.Module, slim: nn.Module, training: Data, task: Task, gates: object) -> None:
    _fit(work, own_copy(slim), training, task, "slim", dense)


def _fit(work: Work, model: nn.Module, data: Data, task: Task, what: str, dense: nn.Module | None = None) -> None:
    spec, going_on = work.spec["spec"], work.spec["going_on"]
    train_stage(model, spec, data, task, work.folder, what, work.seed, work.reporter, going_on, dense)
    (work.folder / f"{what}.training.safetensors").unlink(missing_ok=True)  # what an interrupted training goes on from


def own_copy(model: nn.Module) -> nn.Module:
    """A copy with tensors of its own: what was measured of the network before stays true of it."""
    copy = skeleton_copy(model)
    replace_tensors(copy, {key: tensor.detach().clone() for key, tensor in tensors(model).items()})
    return copy


def write_weights(model: nn.Module, path: Path) -> None:
    held = {key: tensor.detach().contiguous() for key, tensor in tensors(model).items()}
    atomic_files.write(path, lambda aside: save_file(held, aside))


def with_weights(model: nn.Module, path: Path) -> nn.Module:
    """`model`, whose tensors are filled from a file in place."""
    held, own = load_file(path), tensors(model)
    if held.keys() != own.keys():
        raise StoreError(f"{path} holds other tensors than {type(model).__name__}: delete its folder, and run again")
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(held[key])
    return model.eval()
