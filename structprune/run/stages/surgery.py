"""The cut, the check of what was cut, and recovery."""

from __future__ import annotations

import json
import time
from typing import Any

from torch import nn

from ...calibration import Batch
from ...data import Data
from ...modules import own_copy
from ...ops import Inputs
from ...quality_judge import Judge
from ...recipe import Recipe
from ...records import Plan
from ...recover import recover
from ...report.records import RecoveryStep
from ...schedules.rounds import trains_between
from ...store import atomic_files
from ...surgery import prune
from ...tasks import Task
from ...user_code_calls import code_named
from ...verify import Gate, verify
from ..stage import Work, stage
from .quality import quality_of
from .training import with_weights, write_weights


@stage(
    "source",
    after="compose",
    needs=("dense", "base", "plan", "cut_plan"),
    makes=("source", "cuts"),
    spec=trains_between,
)
def choose_source(work: Work, dense: nn.Module, base: nn.Module, plan: Plan, cut_plan: Plan) -> dict[str, Any]:
    """What is cut, and by which plan: what the round before has left, or where it was not trained, the dense network by
    all plans so far. Recovery then holds each round's network against the dense one, and errors do not add up."""
    return {"source": base, "cuts": cut_plan} if work.spec else {"source": dense, "cuts": plan}


@stage("cut", after="source", needs=("source", "cuts"), makes=("slim",))
def cut(work: Work, source: nn.Module, cuts: Plan) -> nn.Module:
    return prune(source, cuts)


def changes_weights(recipe: Recipe) -> bool:
    """Whether the slim network is something else in the end than the dense one, cut."""
    return bool(recipe.recover or recipe.finetune)


def _checks_cut(recipe: Recipe) -> bool:
    """Whether the network as cut is not the one in the end."""
    return changes_weights(recipe) or recipe.prune.schedule is not None


@stage(
    "check",
    after="judge_cut",
    needs=("source", "slim", "cuts", "samples"),
    first=("quality.pruned",),  # a network that does not run is said as such
    makes=("gates.pruned",),
    when=_checks_cut,
    between=trains_between,  # else the next one cuts the dense network anew, and the last proves all of it
)
def check(work: Work, source: nn.Module, slim: nn.Module, cuts: Plan, samples: Data) -> Gate:
    work.reporter.stage("checking the network as cut, before recovery and fine-tuning")
    return verify(source, slim, cuts, samples.example)


@stage(
    "recover",
    after="check",
    needs=("source", "slim", "cuts", "samples", "task", "judge", "gates.*"),
    makes=("slim", "recovery"),
    spec=lambda recipe: {"steps": recipe.recover, "code": [code_named(step.method) for step in recipe.recover]},
    when=lambda recipe: bool(recipe.recover),
    read=lambda work, slim: _recovered(work, slim),
    reads=("slim",),
    sound_only=True,
    title="the recovered slim network",
)
def mend(
    work: Work,
    source: nn.Module,
    slim: nn.Module,
    cuts: Plan,
    samples: Data,
    task: Task,
    judge: Judge,
    gates: dict[str, Gate],
) -> None:
    """Recovery step by step; what each changed, and how good the network was then, is kept beside the weights."""
    steps = []
    for step in work.spec["steps"]:
        start = time.perf_counter()
        with work.reporter.bar(f"recovery: {step.method}") as update:
            images = [Batch(Inputs.of(samples.example))] if samples.calibration is None else samples.calibration
            options: dict[str, Any] = {"task": task, "seed": work.seed, "memory": work.memory}
            done = recover(source, slim, cuts, images, [step], **options, progress=update)
        slim, seconds = done.model, time.perf_counter() - start
        quality = quality_of(slim, judge)
        entry = {**step.model_dump(mode="json"), "layers": done.layers[0], "notes": done.notes, "seconds": seconds}
        steps.append(RecoveryStep(**{**entry, "quality": quality.value, "kl": quality.kl}))
        work.reporter.stage(
            f"recovery by {step.method}: {done.layers[0]} layers, {quality.metric} {quality.value:.4f}",
            **entry,
        )
        work.say_notes(done.notes)
    write_weights(slim, work.folder / "recovered.safetensors")
    atomic_files.write_text(work.folder / "recovery.json", json.dumps([step.to_data() for step in steps]))


def _recovered(work: Work, slim: nn.Module) -> dict[str, Any]:
    steps = json.loads((work.folder / "recovery.json").read_text(encoding="utf-8"))
    recovery = [RecoveryStep.model_validate(step) for step in steps]
    return {"slim": with_weights(own_copy(slim), work.folder / "recovered.safetensors"), "recovery": recovery}
