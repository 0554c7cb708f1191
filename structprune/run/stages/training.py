"""Training of the dense network, and fine-tuning of the slim one. Weights are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ...data import Data
from ...errors import StoreError
from ...graph import DependencyGraph
from ...modules import own_copy, tensors
from ...recipe import Recipe
from ...records import Plan
from ...report.training_records import Epoch
from ...schedules.finetuning import FinetuneSpec, in_full
from ...schedules.new_weights import new_slim
from ...schedules.optimizer_state import CarriedState
from ...schedules.rounds import carries_state
from ...store import atomic_files
from ...surgery import prune
from ...tasks import Task
from ...train import train_stage
from ...train.method import UNKNOWN_CUT, ComingCut, TrainingMethod, code_of
from ...train.spec import TrainSpec
from ...train.stage import TrainingSettings, read_epochs
from ..processes import share
from ..stage import Work, stage
from .costs import Costs

_STATE = "slim.optimizer.safetensors"  # of the optimiser, for the next round


def _spec(spec: TrainSpec | None) -> dict[str, Any]:
    """A training, with the text of what it takes from the user's files."""
    return {} if spec is None else {"spec": spec, "code": code_of(spec.methods)}


def _inputs_of_training(recipe: Recipe) -> tuple[str, ...]:
    plans = recipe.train is not None and recipe.train.plans
    return ("model", "training", "task", *(("costs",) if plans else ()))


@stage(
    "train",
    after="graph",
    needs=_inputs_of_training,
    first=("graph",),  # what can't be pruned is said before it is trained
    makes=("dense", "base", "epochs.dense"),
    spec=lambda recipe: {**_spec(recipe.train), "going_on": recipe.model.trained},
    when=lambda recipe: recipe.train is not None,
    read=lambda work, model: _trained(work, model, "dense", "base"),
    reads=("model",),
    title="the trained dense network",
)
def train(work: Work, model: nn.Module, training: Data, task: Task, costs: Costs | None = None) -> None:
    """Trains the model in place, which the graph's weights are too."""
    _fit(work, model, training, task, "dense", cut=_cut(costs))


def _trained(work: Work, network: nn.Module, *names: str) -> dict[str, Any]:
    """A network with its trained weights, under each of the names, and how its training went."""
    trained = with_weights(network, work.folder / f"{names[0]}.safetensors")
    epochs = [Epoch(**row) for row in read_epochs(work.folder / f"{names[0]}.epochs.json")]
    return {**dict.fromkeys(names, trained), f"epochs.{names[0]}": epochs}


def _cut(costs: Costs | None) -> ComingCut:
    return UNKNOWN_CUT if costs is None else ComingCut(costs.form, costs.multiples or None, costs.cost)


def _starts(recipe: Recipe) -> str:
    """What the slim network's training starts from."""
    return recipe.finetune.start if recipe.finetune else "slim"


def _epoch(recipe: Recipe) -> int | None:
    """The epoch of the dense training that it goes back to."""
    return recipe.finetune.rewind_to if recipe.finetune else None


@stage(
    "trained_graph",
    after="train",
    needs=("graph", "dense_graph", "base"),
    makes=("graph", "dense_graph"),
    when=lambda recipe: recipe.train is not None,
)
def weigh_graph(work: Work, graph: DependencyGraph, dense_graph: DependencyGraph, base: nn.Module) -> dict[str, Any]:
    """The graph, now that its network has the weights that are cut.

    It was traced before the training, on the same network. Where the trained weights are found in the store, nobody
    else would load them for stages that look at weights through the graph.
    """
    return {"graph": graph, "dense_graph": dense_graph}


@stage(
    "early",
    after="trained_graph",
    needs=_inputs_of_training,
    makes=("early",),
    spec=lambda recipe: {**_spec(recipe.train), "model": recipe.model, "going_on": False, "until": _epoch(recipe)},
    when=lambda recipe: _starts(recipe) == "rewind",
    read=lambda work: work.folder / "dense.safetensors",
    title="the dense network's early weights",
)
def train_early(work: Work, model: nn.Module, training: Data, task: Task, costs: Costs | None = None) -> None:
    """The weights that the dense training has after an epoch, of the same training once more: `model` is trained."""
    from ...models import build_model

    network = build_model(work.spec["model"], work.seed, work.reporter.stage)
    if work.spec["until"]:
        _fit(work, network, training, task, "dense", until=work.spec["until"], cut=_cut(costs))
    else:
        write_weights(network, work.folder / "dense.safetensors")


@stage(
    "restart",
    after="judge_recovered",
    needs=lambda recipe: (
        "dense",
        "dense_graph",
        "plan",
        "gates.*",
        *(("early",) if _starts(recipe) == "rewind" else ()),
    ),
    makes=("slim",),
    spec=lambda recipe: recipe.model,
    when=lambda recipe: _starts(recipe) != "slim",
    sound_only=True,
)
def restart(
    work: Work, dense: nn.Module, dense_graph: DependencyGraph, plan: Plan, gates: object, early: Path | None = None
) -> nn.Module:
    """The slim network, once the gate has seen it with the weights that were cut, with early weights or new ones."""
    if early is not None:
        return prune(with_weights(own_copy(dense), early), plan)
    return new_slim(work.spec, dense_graph, plan, work.seed, work.reporter.stage)


@stage(
    "finetune",
    after="restart",
    needs=lambda recipe: (
        *("dense", "slim", "training", "task", "gates.*", "plan"),
        *(("cut_plan", "optimizer_state?") if carries_state(recipe) else ()),
    ),
    makes=("slim", "epochs.slim", "optimizer_state"),
    spec=lambda recipe: {**_spec(recipe.finetune), "going_on": False, "carries": carries_state(recipe)},
    when=lambda recipe: recipe.finetune is not None,
    read=lambda work, slim: {**_trained(work, own_copy(slim), "slim"), "optimizer_state": work.folder / _STATE},
    reads=("slim",),
    sound_only=True,
    title="the fine-tuned slim network",
)
def finetune(
    work: Work,
    dense: nn.Module,
    slim: nn.Module,
    training: Data,
    task: Task,
    gates: object,
    plan: Plan,
    cut_plan: Plan | None = None,
    optimizer_state: Path | None = None,
) -> None:
    spec: FinetuneSpec = work.spec["spec"]
    if spec.restarts:
        weights = "new weights" if spec.start == "scratch" else f"the dense network's weights of epoch {spec.rewind_to}"
        work.reporter.stage(f"of the slim network only the structure is kept: its training starts from {weights}")
    spec = in_full(spec, plan.macs)
    methods = () if cut_plan is None else (CarriedState(optimizer_state, cut_plan, work.folder / _STATE),)
    _fit(work, own_copy(slim), training, task, "slim", dense, spec, plan=plan, methods=methods)


def _fit(
    work: Work,
    model: nn.Module,
    data: Data,
    task: Task,
    what: str,
    dense: nn.Module | None = None,
    spec: TrainSpec | None = None,
    until: int | None = None,
    cut: ComingCut = UNKNOWN_CUT,
    plan: Plan | None = None,
    methods: tuple[TrainingMethod, ...] = (),
) -> None:
    spec, going_on = spec or work.spec["spec"], work.spec["going_on"]
    settings = TrainingSettings(spec, work.folder, what, work.seed, until, cut, methods)

    def begin() -> None:
        share(settings, model, plan, dense)

    train_stage(
        settings, model, data, task, work.reporter, going_on=going_on, dense=dense, plan=plan, begin=begin,
        events=_events(work),
    )  # fmt: skip
    (work.folder / f"{what}.training.safetensors").unlink(missing_ok=True)  # what an interrupted training goes on from


def _events(work: Work) -> Path | None:
    """The folder of TensorBoard's files in that of the run: `tensorboard/dense`, `tensorboard/slim`, and of rounds
    before the last `tensorboard/slim.1`. None where no run's folder is open."""
    if work.reporter.log is None:
        return None
    stage, dot, number = work.stage.partition(".")
    network = {"train": "dense", "finetune": "slim"}.get(stage, stage)
    return work.reporter.log.parent / "tensorboard" / f"{network}{dot}{number}"


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
