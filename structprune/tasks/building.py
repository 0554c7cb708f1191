"""`task:` in a recipe: a built-in task by its name, or a class of the user's own; and the task that it means."""

from __future__ import annotations

from ..errors import RecipeError
from ..user_code import Tell, to_stderr
from ..user_code_calls import made_by
from .spec import TASKS, OwnTaskSpec, TaskSpec
from .task import Task


def make_task(spec: TaskSpec | str = "classification", tell: Tell = to_stderr) -> Task:
    """Makes the task of a spec or name.

    Args:
        spec: the recipe's `task`, or the name of a registered task.
        tell: gets a line that says which file of the user's is run.

    Returns:
        The task.

    Raises:
        RecipeError: the task is not known or can't be made.
    """
    if isinstance(spec, str):
        if spec not in TASKS:
            raise RecipeError(TASKS.complain(spec))
        spec = TASKS[spec].spec(name=spec)
    if not isinstance(spec, OwnTaskSpec):
        return TASKS[spec.name].make(spec)
    task = made_by(spec.name, "task", spec.kwargs, tell)
    if not isinstance(task, Task):
        kind = type(task).__name__
        raise RecipeError(f"task: {spec.name} makes a {kind}: give a class that extends structprune.tasks.Task")
    return task
