"""Inspects a model and a user's function that returns datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import default_collate

from ..calibration.batches import Batch
from ..data import load_data
from ..data.loading import is_dataset
from ..data.user_function import OwnDataSpec
from ..errors import ModelError, RecipeError
from ..models import ModelSpec, TimmSpec, build_model
from ..modules import evaluating
from ..strict_specs import mistakes
from ..tasks import Task
from ..user_code_calls import in_one_line
from .inspection import Network, params_of, scores_of
from .task_inference import build_task, task_by_name, task_of_outputs, task_of_targets


class _Peek(Task):
    """Looks at one sample, whatever it is."""

    def collate(self, items: list[Any]) -> Any:
        return default_collate(items[:1])


def look_at_own_data(
    spec: ModelSpec, source: str, task: str | None, tell: Callable[[str], object]
) -> tuple[Network, dict[str, Any], int]:
    """Builds a model, and runs it on the first sample of a user's function.

    Args:
        spec: The spec of the model.
        source: `file.py:function`, which returns datasets.
        task: The task that the user names; by default inferred from outputs and targets.
        tell: Gets a line for what is run.

    Returns:
        The network; the section `data` of the recipe, with `labels: false` if samples have no targets; and the
        number of samples to train on.

    Raises:
        RecipeError: The function does not return data, or its targets fit no task.
        ModelError: The model does not run on a sample.
    """
    data_section: dict[str, Any] = {"source": source}
    try:
        own = OwnDataSpec(**data_section, labels=False)
    except ValidationError as error:
        raise RecipeError(f"--data {next(mistakes(error))[0]['msg'].removeprefix('Value error, ')}") from error
    model = build_model(spec.untrained() if isinstance(spec, TimmSpec) else spec, 0, tell)
    sample = _sample(load_data(own, model, 0, task=_Peek(), tell=tell).test, source)
    try:
        with evaluating(model):
            outputs = sample.inputs.call(model)
    except Exception as error:  # whatever the model's own code raises
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{spec.name} does not run on the samples of {source}: {detail}") from error
    if task is not None:
        section = task_by_name(task, outputs, spec.name)
    elif sample.labels is None:
        section = task_of_outputs(outputs, None, model, spec.name)
    else:
        section = task_of_targets(outputs, sample.labels, spec.name, source)
    purpose = build_task(section, tell)
    if sample.labels is None:
        data_section["labels"] = False
    else:
        with in_one_line(RecipeError, f"--data {source}"):
            purpose.check(outputs, sample.labels)
    data = load_data(OwnDataSpec(**data_section), model, 0, task=purpose, tell=lambda line: None)
    shapes = [tuple(t.shape[1:]) for t in sample.inputs.flat() if isinstance(t, Tensor)]
    takes = f"samples of {' and '.join('×'.join(map(str, shape)) or 'a number' for shape in shapes)}"
    network = Network(spec, takes, 0, (), True, True, scores_of(outputs), params_of(model), section)
    samples = len(data.train) if data.train is not None else 0  # type: ignore[arg-type]
    return network, data_section, samples


def _sample(test: Any, source: str) -> Batch:
    """The first sample, as a batch of one; of a stream its first batch."""
    first = next(iter([test[0]] if is_dataset(test) else test), None)
    if first is None:
        raise RecipeError(f"--data {source}: test is empty")
    with in_one_line(RecipeError, f"--data {source} gives samples that can't be batched"):
        return _Peek().batch(default_collate([first]) if is_dataset(test) else first)
