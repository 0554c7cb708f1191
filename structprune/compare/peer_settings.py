"""What torch-pruning is told of a recipe."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

from ..cost import wants_latency
from ..graph import DependencyGraph
from ..graph.tracing import OUTPUT
from ..models import build_model
from ..recipe import Recipe
from .peer import Settings
from .rows import OURS, THEIRS

_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys(("l1", "group_l1"), ("GroupMagnitudeImportance", {"p": 1})),
    **dict.fromkeys(("l2", "group_l2"), ("GroupMagnitudeImportance", {"p": 2})),
    "fpgm": ("FPGMImportance", {}),
    "slimming": ("BNScaleImportance", {}),
    "random": ("RandomImportance", {}),
}
_IS_GLOBAL = {"uniform": False, "global": True, "threshold": True}  # allocations that torch-pruning has, as it has them


def settings_of(recipe: Recipe) -> tuple[Settings, list[str]]:
    """How torch-pruning does what the recipe asks, and where it can't."""
    spec, notes = recipe.prune, [f"{THEIRS} is cut to {OURS}'s MACs, by the pruning ratio that comes nearest"]
    if spec.criterion not in _SETTINGS:
        notes.append(f"{THEIRS} has no {spec.criterion}: its group L1 instead")
    if spec.allocation not in _IS_GLOBAL:
        notes.append(f"{THEIRS} has no allocation {spec.allocation}: the same ratio in every layer")
    if wants_latency(spec.budget.as_dict()):
        notes.append(
            f"{OURS}'s seconds are without learning what widths cost, which was done before, and is kept on disk"
        )
    if recipe.recover:
        notes.append(f"{THEIRS} has no recovery: its quality is as cut" + (", then fine-tuned" * bool(recipe.finetune)))
    importance, arguments = _SETTINGS.get(spec.criterion, _SETTINGS["l1"])
    modules = [path for path, _ in build_model(recipe.model, recipe.seed, lambda line: None).named_modules()]
    ignored = [path for path in modules if any(fnmatch(path, glob) for glob in spec.ignore)]
    return Settings(importance, arguments, _IS_GLOBAL.get(spec.allocation, False), ignored, spec.max_ratio), notes


def output_layers(graph: DependencyGraph) -> list[str]:
    """The layers that make the network's outputs: torch-pruning must be told, or it narrows them."""
    return [path for path, reason in graph.whole_layers.items() if reason == OUTPUT]
