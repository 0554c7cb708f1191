"""Infers the task of a network from its outputs and the targets of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from ..errors import RecipeError
from ..strict_specs import mistakes
from ..tasks import TASKS, Task
from ..tasks.building import OwnTaskSpec, make_task
from ..tasks.detection import BOX_KEYS
from ..tasks.task import main_output
from ..user_code import Tell

KEYS = ("logits", "out", "predicted_depth")
_CLASSES: dict[str, Any] = {"name": "classification"}


def task_of_outputs(outputs: Any, images: Tensor | None, model: nn.Module, what: str) -> dict[str, Any]:
    """Infers the section `task` of a recipe from outputs alone.

    Args:
        outputs: What the network returned.
        images: Its inputs, if they are images.
        model: The network, which may say that it returns features.
        what: Its name in messages.

    Returns:
        The section.

    Raises:
        RecipeError: The outputs do not tell.
    """
    if _are_boxes(outputs):
        return {"name": "detection"}
    main = _main(outputs, what)
    if main.dim() == 2:
        return {"name": "embedding"} if getattr(model, "num_classes", None) == 0 else _CLASSES
    if main.dim() == 4:
        like_images = images is not None and main.shape[1:] == images.shape[1:]
        if main.shape[1] > 1 and not like_images:
            return {"name": "segmentation", "num_classes": int(main.shape[1])}
        return {"name": "regression"}
    if main.dim() == 3 and images is not None and main.shape[1:] == images.shape[2:]:  # one number a pixel: depth
        return {"name": "regression"}
    raise RecipeError(f"{what} gives {_shape(main)}, which does not tell its task: name it by --task{_names()}")


def task_of_targets(outputs: Any, targets: Any, what: str, source: str) -> dict[str, Any]:
    """Infers the section `task` from outputs and targets. Raises RecipeError if they do not tell."""
    if isinstance(targets, Mapping) and {"boxes", "labels"} <= targets.keys():
        return {"name": "detection"}
    unclear = RecipeError(
        f"--data {source} gives targets that are not classes: write the recipe by hand, or say its task by "
        f"--task{_names()}"
    )
    if not isinstance(targets, Tensor):
        raise unclear
    if targets.is_floating_point():
        main = _main(outputs, what)
        if main.shape != targets.shape:
            raise unclear
        if main.dim() == 2:
            raise RecipeError(
                f"--data {source} gives numbers of shape {_shape(targets)} as targets: say what they are, by --task "
                "regression or --task embedding"
            )
        return {"name": "regression"}
    if targets.dim() == 1:
        return _CLASSES
    main = _main(outputs, what)
    if main.dim() == 4 and targets.dim() in (3, 4):
        return {"name": "segmentation", "num_classes": int(main.shape[1])}
    raise unclear


def task_by_name(task: str, outputs: Any, what: str) -> dict[str, Any]:
    """The section of the task that a user named. Raises RecipeError if it is unknown, or does not fit the outputs."""
    if task not in TASKS and ":" not in task:
        raise RecipeError(f"--task: {TASKS.complain(task)}, or file.py:Task")
    if task != "segmentation":
        return {"name": task}
    main = _main(outputs, what)
    if main.dim() != 4 or main.shape[1] < 2:
        raise RecipeError(
            f"--task segmentation needs scores of classes at every pixel, and {what} gives {_shape(main)}"
        )
    return {"name": task, "num_classes": int(main.shape[1])}


def build_task(section: Mapping[str, Any], tell: Tell) -> Task:
    """Makes the task of a section. Raises RecipeError if it can't be made."""
    name = str(section["name"])
    spec: Any = TASKS[name].spec(**section) if name in TASKS else None
    if spec is None:
        try:
            spec = OwnTaskSpec(**section)
        except ValidationError as error:
            raise RecipeError(f"--task {next(mistakes(error))[0]['msg'].removeprefix('Value error, ')}") from error
    return make_task(spec, tell)


def is_classes(section: Mapping[str, Any]) -> bool:
    """Whether a folder's classes are labels for this task."""
    return str(section["name"]) not in TASKS or TASKS[str(section["name"])].classes


def _are_boxes(outputs: Any) -> bool:
    one = outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs
    return isinstance(one, Mapping) and one.keys() >= BOX_KEYS


def _main(outputs: Any, what: str) -> Tensor:
    try:
        return main_output(outputs, "", KEYS)
    except RecipeError:
        raise RecipeError(
            f"{what} gives a {type(outputs).__name__}, which does not tell its task: name it by --task{_names()}"
        ) from None


def _names() -> str:
    return f" {', '.join(TASKS)} or file.py:Task"


def _shape(x: Tensor) -> str:
    return "×".join(map(str, x.shape))
