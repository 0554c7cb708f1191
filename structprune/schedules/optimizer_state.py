"""The optimiser's state over rounds: moments are cut with their weights, so that training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import TrainingError
from ..modules import tensors
from ..process_state import seeded
from ..records import Plan
from ..surgery import sliced
from ..train.checkpoint import read_state, store_state
from ..train.method import Training, TrainingMethod
from ..train.optimisation import make_optimizer
from ..train.spec import TrainSpec


class CarriedState(TrainingMethod):
    """The state that the optimiser of the round before has left, cut by a plan; its own is kept for the next.

    What an optimiser keeps of a parameter has the parameter's shape, and is sliced as it is (a mean of gradients, of
    their squares, a slow copy of the weights), or is a number (a count of updates), which stays.
    """

    def __init__(self, left: Path | None, plan: Plan, target: Path) -> None:
        """
        Args:
            left: what an earlier training has written; None for the first.
            plan: the cut between that training and this one.
            target: the file that gets the state at the end.
        """
        self.left = None if left is None else left.absolute()  # whatever folder another process works in
        self.plan, self.target = plan, target.absolute()

    def start(self, training: Training) -> None:
        self.training = training
        if self.left is not None:
            _load(training.optimizer, training.model, cut_state(read_state(self.left), self.plan))

    def finish(self, model: nn.Module) -> None:
        from accelerate import PartialState

        if PartialState().is_main_process:
            store_state(self.target, _by_key(self.training.optimizer, model), "the optimizer")


def cut_state(state: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The state of an optimiser that a plan's network can go on from.

    Args:
        state: `parameters`, by their state_dict keys, and the `groups` of options.
        plan: what was cut since.

    Returns:
        The same with each tensor sliced as its parameter.

    Raises:
        TrainingError: A tensor has another shape than its parameter, which was cut.
    """
    parameters = {key: _cut(key, entry, plan) for key, entry in state["parameters"].items()}
    return {"parameters": parameters, "groups": state["groups"]}


def _cut(key: str, entry: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    if key not in plan.keep:
        return dict(entry)
    for name, value in entry.items():
        if (other := _other_shape(value, plan.shapes[key])) is not None:
            raise TrainingError(
                f"the optimizer keeps {name} of {other} for {key} of shape {plan.shapes[key]}, which can't be cut with "
                "it: set prune.schedule.optimizer to new"
            )
    return {
        name: sliced(value, plan.keep[key]) if isinstance(value, Tensor) and value.numel() > 1 else value
        for name, value in entry.items()
    }


def _other_shape(value: Any, shape: Sequence[int]) -> str | None:
    """What a value is, if tensors in it are neither numbers nor of the shape; None if it can be cut, or has none."""
    if not isinstance(value, Tensor):
        return "several tensors" if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)) else None
    return f"shape {list(value.shape)}" if value.numel() > 1 and list(value.shape) != list(shape) else None


def uncuttable(spec: TrainSpec) -> str | None:
    """What an optimiser keeps that can't be cut with its weights, if it does: a small network takes a step to tell."""
    model = nn.Sequential(nn.Conv2d(48, 64, 1), nn.Flatten(), nn.Linear(64, 48))
    optimizer = make_optimizer(model, spec.model_copy(update={"layer_decay": None}))
    with seeded(), torch.enable_grad(), torch.compiler.set_stance("force_eager"):  # one step is not worth compiling
        model(torch.ones(2, 48, 1, 1)).square().mean().backward()
        optimizer.step()
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (other := _other_shape(value, parameter.shape)) is not None:
                return f"{name} of {other} for weights of shape {list(parameter.shape)}"
    return None


def _by_key(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """The state by the keys of parameters: their order may be another in the next network."""
    keys = {id(tensor): key for key, tensor in tensors(model).items()}
    order = [keys[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    data = optimizer.state_dict()
    groups = [{name: value for name, value in group.items() if name != "params"} for group in data["param_groups"]]
    return {"parameters": {order[index]: entry for index, entry in data["state"].items()}, "groups": groups}


def _load(optimizer: torch.optim.Optimizer, model: nn.Module, state: Mapping[str, Any]) -> None:
    """Gives an optimiser that has taken no step a state; of the groups' options it takes what it does not have yet."""
    keys = {id(tensor): key for key, tensor in tensors(model).items()}
    order = [keys[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    data = optimizer.state_dict()
    places = {key: index for index, key in enumerate(order)}
    data["state"] = {places[key]: entry for key, entry in state["parameters"].items() if key in places}
    if len(data["param_groups"]) == len(state["groups"]):
        data["param_groups"] = [{**old, **new} for old, new in zip(state["groups"], data["param_groups"], strict=True)]
    optimizer.load_state_dict(data)
