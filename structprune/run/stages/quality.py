"""How good the networks are on held-out data, as the task measures it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...data import Data
from ...data.loading import is_dataset
from ...errors import GateError
from ...quality_judge import Judge, Quality
from ...store import atomic_files
from ...tasks import Task
from ..stage import Work, stage


@stage("judge", after="early", needs=("dense", "held_out", "task"), makes=("judge", "quality.dense"))
def of_dense(work: Work, dense: nn.Module, held_out: Data, task: Task) -> Mapping[str, Any]:
    test = held_out.test
    split = f"{len(test)} held-out images" if is_dataset(test) else "held-out data"  # type: ignore[arg-type]
    work.reporter.stage(f"measuring quality on {split}")
    judge = Judge(task, test, dense, labelled=held_out.labelled, workers=held_out.workers)
    return {"judge": judge, "quality.dense": judge.dense}


@stage("judge_final", after="finetune", needs=("slim", "judge"), makes=("quality.final",))
@stage(
    "judge_recovered",
    after="recover",
    needs=("slim", "judge"),
    makes=("quality.recovered",),
    when=lambda recipe: bool(recipe.recover),
    sound_only=True,
)
@stage("judge_cut", after="cut", needs=("slim", "judge"), makes=("quality.pruned",))
def of_slim(work: Work, slim: nn.Module, judge: Judge) -> Quality:
    return quality_of(slim, judge)


@stage(
    "choose",
    after="judge",
    needs=("dense", "held_out", "task"),
    makes=("chooser",),
    when=lambda recipe: bool(recipe.prune.budget.bounds),
)
def of_choice(work: Work, dense: nn.Module, held_out: Data, task: Task) -> Judge:
    """Measures networks on the split that choices are made on."""
    assert held_out.validation is not None
    return Judge(task, held_out.validation, dense, labelled=held_out.labelled, workers=held_out.workers)


@stage(
    "judge_choice",
    after="finetune",
    repeats=False,
    needs=("slim", "chooser"),
    makes=("validation",),
    when=lambda recipe: bool(recipe.prune.budget.bounds),
    read=lambda work: Quality(**json.loads((work.folder / "quality.json").read_text(encoding="utf-8"))),
)
def of_candidate(work: Work, slim: nn.Module, chooser: Judge) -> None:
    atomic_files.write_text(work.folder / "quality.json", json.dumps(dataclasses.asdict(quality_of(slim, chooser))))


def quality_of(slim: nn.Module | Path, judge: Judge) -> Quality:
    """Raises GateError for a network whose shapes do not fit."""
    try:
        return judge(slim)
    except (RuntimeError, ValueError, IndexError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GateError(f"the slim network does not run, so no slim artefact was kept: {detail}") from error
