"""Where a run's data comes from: a registered source, or a user's own function."""

from __future__ import annotations

from torch import nn

from ..errors import RecipeError
from ..modules import evaluating
from ..ops import Inputs
from ..tasks.task import Task
from ..user_code import Tell, to_stderr
from .record import SOURCES, Data, Request
from .spec import DataSpec, OwnDataSpec
from .user_function import load_own_data


def load_data(
    spec: DataSpec,
    model: nn.Module,
    seed: int,
    *,
    task: Task | None = None,
    choosing: bool = False,
    tell: Tell = to_stderr,
) -> Data:
    """The data that a recipe names, prepared as `model` wants it.

    Args:
        spec: the recipe's `data`.
        model: says the size, mean and std of its images, and its classes.
        seed: decides splits, crops and which samples calibrate.
        task: says how samples become batches; by default classification.
        choosing: whether something is to choose by quality: then there is a `validation` split, of files of its own.
        tell: gets a line that says which file of the user's is run.

    Returns:
        The data, with a `validation` part if `choosing`.

    Raises:
        RecipeError: the data is missing or broken, or does not fit the model.
    """
    from ..tasks.building import make_task

    request = Request(model, seed, task or make_task(), choosing, tell)
    if isinstance(spec, OwnDataSpec):
        return load_own_data(spec, request)
    data = SOURCES[spec.source].load(spec, request)
    if data.labelled and data.classes is not None:
        _check_scores(model, data, request.task)
    return data


def _check_scores(model: nn.Module, data: Data, task: Task) -> None:
    """Raises RecipeError if the network scores another number of classes than the data has."""
    try:
        with evaluating(model):
            outputs = Inputs.of(data.one).beside(model).call(model)
    except Exception:  # whatever the model's own code raises: tracing says it better
        return
    scored = task.classes_scored(outputs)
    if scored is not None and scored != data.classes:
        raise RecipeError(
            f"the data has {data.classes} classes and the network scores {scored}: give it as many outputs, or set "
            "data.labels=false"
        )
