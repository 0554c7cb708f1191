"""New weights for a slim network: as its model's own code draws them, at the scale of the widths that are left."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..graph import DependencyGraph
from ..models import build_model
from ..models.registry import ModelSpec, Tell
from ..modules import tensors
from ..plan_schema import in_blocks
from ..records import Plan
from ..seeds import derived
from ..surgery import prune


def new_slim(spec: ModelSpec, graph: DependencyGraph, plan: Plan, seed: int, tell: Tell) -> nn.Module:
    """The slim network of a plan with new weights.

    The model is built anew under another seed, and cut by the plan, so that each weight is drawn as the model's code
    draws it: zero where it starts a scale at zero. Weights that lost inputs are then multiplied by √(inputs before ÷
    inputs left), so that signals are as large as in the dense network when it is new; for layers whose scale follows
    their number of inputs, as torch's own does, that is what building them at the slim width gives.

    Args:
        spec: The model of the recipe, whose weights are left out.
        graph: The dense network's, by which the plan was made.
        plan: What stays.
        seed: The recipe's; the new weights are of one that derives from it.
        tell: Gets a line on weights that are not random.

    Returns:
        A network of the plan's structure.

    Raises:
        RecipeError: The model can't be built without its weights.
    """
    network = _new_network(spec, seed, tell)
    slim = prune(network, plan)
    weights = tensors(slim)
    inputs = {(piece.key, piece.dim) for group in graph.groups for piece in group.slices if piece.role == "consumer"}
    with torch.no_grad():
        for key, dim in inputs:
            if kept := plan.keep.get(key, {}).get(str(dim)):
                count = len(kept[0]) if in_blocks(kept) else len(kept)
                weights[key].mul_(math.sqrt(plan.shapes[key][dim] / count))
    return slim


def _new_network(spec: ModelSpec, seed: int, tell: Tell) -> nn.Module:
    """The model, built anew without weights. Raises RecipeError where that does not make it another."""
    spec = spec.untrained()
    if spec.trained:
        raise RecipeError(
            f"finetune.start=scratch: {spec.name} can't be built without its weights: give the model that it was cut "
            "from"
        )
    network, other = (build_model(spec, derived(seed, number), tell) for number in (1, 2))
    weights = {key: weight for key, weight in network.named_parameters() if _may_be_random(weight)}
    others = dict(other.named_parameters())
    same = [key for key, weight in weights.items() if torch.equal(weight, others[key])]
    if weights and len(same) == len(weights):
        raise RecipeError(
            f"finetune.start=scratch: {spec.name} is built with the same weights under any seed, so that they are not "
            "new: have its code load none"
        )
    if same:
        tell(f"{len(same)} of {len(weights)} weights of {spec.name} are the same under any seed, such as {same[0]}")
    return network


def _may_be_random(weight: Tensor) -> bool:
    return weight.requires_grad and weight.dim() > 1 and bool((weight != weight.flatten()[0]).any())
