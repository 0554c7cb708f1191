"""The cut, the check of what was cut, and recovery."""

from __future__ import annotations

import json
import time
from typing import Any

from torch import nn

from ...calibration import Batch
from ...data import Data
from ...ops import Inputs
from ...quality_judge import Judge
from ...recipe import Recipe
from ...records import Plan
from ...recover import recover
from ...report.records import RecoveryStep
from ...store import atomic_files
from ...surgery import prune
from ...user_code_calls import code_named
from ...verify import Gate, verify
from ..stage import Work, stage
from .quality import quality_of
from .training import own_copy, with_weights, write_weights


@stage("cut", after="plan", needs=("dense", "plan"), makes=("slim",))
def cut(work: Work, dense: nn.Module, plan: Plan) -> nn.Module:
    return prune(dense, plan)


def changes_weights(recipe: Recipe) -> bool:
    """Whether the slim network is something else in the end than the dense one, cut."""
    return bool(recipe.recover or recipe.finetune)


@stage(
    "check",
    after="judge_cut",
    needs=("dense", "slim", "plan", "data"),
    first=("quality.pruned",),  # a network that does not run is said as such
    makes=("gates.pruned",),
    when=changes_weights,
)
def check(work: Work, dense: nn.Module, slim: nn.Module, plan: Plan, data: Data) -> Gate:
    work.reporter.stage("checking the network as cut, before recovery and fine-tuning")
    return verify(dense, slim, plan, data.example)


@stage(
    "recover",
    after="check",
    needs=("dense", "slim", "plan", "data", "judge", "gates.*"),
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
    dense: nn.Module,
    slim: nn.Module,
    plan: Plan,
    data: Data,
    judge: Judge,
    gates: dict[str, Gate],
) -> None:
    """Recovery step by step; what each changed, and how good the network was then, is kept beside the weights."""
    steps = []
    for step in work.spec["steps"]:
        start = time.perf_counter()
        with work.reporter.bar(f"recovery: {step.method}") as update:
            images = [Batch(Inputs.of(data.example))] if data.calibration is None else data.calibration
            options: dict[str, Any] = {"seed": work.seed, "memory": work.memory}
            done = recover(dense, slim, plan, images, [step], **options, progress=update)
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
