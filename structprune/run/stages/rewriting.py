"""A change of the dense network that keeps its function, before it is scored and cut."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...data import Data
from ...graph import DependencyGraph
from ...rewrites import rotate
from ...tasks import Task
from ..stage import Work, stage


@stage(
    "rotate",
    after="dense_onnx",
    needs=("dense", "graph", "samples", "task"),
    makes=("dense", "base", "graph", "dense_graph", "rotation"),
    when=lambda recipe: recipe.prune.rotate,
)
def turn_streams(work: Work, dense: nn.Module, graph: DependencyGraph, samples: Data, task: Task) -> dict[str, Any]:
    """Turns the dense network's linear streams, in place: the network as it came has been judged and exported."""
    with work.reporter.bar("turning linear streams") as update:
        rotation = rotate(graph, samples.calibration, task=task, memory=work.memory, progress=update)
    work.say_notes(rotation.notes)
    networks = {"dense": dense, "base": dense, "graph": graph, "dense_graph": graph}
    return {**networks, "rotation": rotation}
