"""Several processes for one run, however they are started: all train, and the first does everything else.

The first process leads: it reads the recipe, plans, cuts, proves, exports and writes. The others wait, make a network
with the same tensors when the first is about to train one, train beside it, and end with it.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load, save
from torch import nn

from ..data import Data
from ..errors import RecipeError, StructPruneError
from ..launch import accelerator_of, launched, leads, refuse_sharding
from ..modules import own_copy, replace_tensors, tensors
from ..progress import Reporter
from ..recipe import Recipe
from ..records import Plan
from ..store.artefacts import Artefacts
from ..surgery import prune
from ..tasks import Task
from ..train.stage import TrainingSettings

_PATIENCE = timedelta(days=7)  # for which the others wait while the first one plans, measures or exports
_GRACE = 15.0  # seconds in which the first process tells of an error that all have; else it is this one's alone


@dataclass(frozen=True)
class Job:
    """A training that all processes take part in.

    Attributes:
        recipe: of the run.
        settings: what decides it; the folder is on a disk that all processes see.
        plan: plan.json of the network that is trained; None for the dense one.
        weights: the tensors that the training starts from, as a safetensors file holds them.
        dense: those of the dense network, where there is one beside it.
    """

    recipe: Recipe
    settings: TrainingSettings
    plan: str | None
    weights: bytes = field(repr=False)
    dense: bytes | None = field(repr=False)


@dataclass(frozen=True)
class End:
    """The run has ended: what came of it, or the error that ended it."""

    result: Any = None
    error: StructPruneError | None = None


class Crew:
    """The processes of one launch, connected apart from what training exchanges; `recipe` is the run's."""

    recipe: Recipe | None = None

    def __init__(self) -> None:
        from torch import distributed

        try:
            connected = accelerator_of().num_processes
            if connected != launched():
                raise RuntimeError(f"Accelerate finds {connected}")
            self._group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        except (ValueError, RuntimeError, OSError) as error:  # where the launcher does not say all that it should
            failure = RecipeError(
                f"{launched()} processes were launched, and can't be connected ({' '.join(str(error).split())}): start "
                "them by `torchrun --nproc_per_node N -m structprune run ...`; another launcher has to set MASTER_ADDR "
                "to the first process's machine, and MASTER_PORT to a port that is free there"
            )
            if not leads():  # the first process, which says what ends all, may not know of this
                _end_all(failure)
            raise failure from error

    def tell(self, message: Job | End | None = None) -> Any:
        """Sends a message of the first process to all others. Returns it, in each of them."""
        from torch import distributed

        held = [message]
        distributed.broadcast_object_list(held, src=0, group=self._group)
        return held[0]


_CREW: ContextVar[Crew | None] = ContextVar("crew", default=None)


@contextmanager
def crew_of_launch() -> Iterator[Crew | None]:
    """Connects the processes that were launched, while a run works in them; None for one process alone."""
    refuse_sharding()
    crew = Crew() if launched() > 1 else None
    token = _CREW.set(crew)
    try:
        yield crew
    finally:
        _CREW.reset(token)


def lead(crew: Crew, work: Callable[[], Any]) -> Any:
    """Does the work of the first process, and tells the others how it ended.

    Args:
        crew: All processes.
        work: What this one does.

    Returns:
        What `work` returns.

    Raises:
        StructPruneError: As `work` does. The others raise it too.
    """
    try:
        result = work()
    except StructPruneError as error:
        crew.tell(End(error=error))
        raise
    crew.tell(End(result))
    return result


def share(settings: TrainingSettings, model: nn.Module, plan: Plan | None, dense: nn.Module | None) -> None:
    """Calls the other processes, if there are any, to the training that the first one is about to begin.

    Args:
        settings: What decides it.
        model: The network that is trained.
        plan: What was cut from the recipe's network to make it; None where nothing was.
        dense: The network that `model` was cut from.
    """
    crew = _CREW.get()
    if crew is None:
        return
    assert crew.recipe is not None
    settings = replace(settings, folder=settings.folder.absolute())
    text = None if plan is None else plan.to_json()
    crew.tell(Job(crew.recipe, settings, text, _bytes(model), None if dense is None else _bytes(dense)))


def follow(crew: Crew, runner_of: Callable[[Recipe, Reporter, Artefacts], Any]) -> Any:
    """Trains whatever the first process trains, until the run ends.

    Args:
        crew: All processes.
        runner_of: Prepares the stages of a recipe.

    Returns:
        What the first process returns.

    Raises:
        StructPruneError: What ended the run.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        follower: _Follower | None = None
        message = crew.tell()
        while not isinstance(message, End):
            if follower is None:
                runner = runner_of(message.recipe, Reporter(Console(file=io.StringIO())), Artefacts(Path(nowhere)))
                follower = _Follower(runner)
            ending = None
            try:
                follower.train(message)
            except StructPruneError as error:
                ending = threading.Timer(_GRACE, _end_all, [error])
                ending.daemon = True
                ending.start()
            message = crew.tell()
            if ending is not None:
                ending.cancel()
    if message.error is not None:
        raise message.error
    return message.result


def _end_all(error: StructPruneError) -> None:
    """Ends this process, on which the launcher ends the others, for an error that only this one has."""
    print(f"error in process {os.environ.get('RANK')}: {error}", file=sys.stderr, flush=True)
    os._exit(error.exit_code)


class _Follower:
    """The recipe's network, task and data, in a process that follows; `runner` makes them as the first one's does."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    @cached_property
    def _network(self) -> nn.Module:
        network: nn.Module = self._runner.value("model")
        return network

    @cached_property
    def _data(self) -> tuple[Task, Data]:
        return self._runner.value("task"), self._runner.value("training")

    def train(self, job: Job) -> None:
        """Raises StructPruneError, in most cases as the first process does."""
        network, dense, plan = own_copy(self._network), None, None
        if job.dense is not None:
            dense = own_copy(network)
            replace_tensors(dense, load(job.dense))
        if job.plan is not None:
            plan = Plan.from_json(job.plan)
            network = prune(network, plan)
        replace_tensors(network, load(job.weights))
        task, data = self._data
        job.settings.fit(network, data, task, dense, plan)


def _bytes(model: nn.Module) -> bytes:
    return save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors(model).items()})
