"""torch-pruning on a recipe's network, in a process of its own, as it may hang, run out of memory or crash.

    python -m structprune.compare.peer_process TASK.json

The task says what `Task` holds. Its folder gets slim.onnx, kept.safetensors (the kept indices of each tensor's axes)
and, at last, result.json.
"""

from __future__ import annotations

import copy
import io
import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from rich.console import Console
from safetensors.numpy import save_file
from torch import nn

from ..data import Data, load_data
from ..errors import PlanError, RecipeError
from ..export import export_onnx
from ..models import build_model
from ..progress import Reporter
from ..quality_judge import Judge
from ..recipe import Recipe
from ..report import quality_record
from ..report.records import Counts, Quality
from ..store import atomic_files
from ..tasks.building import make_task
from ..train import train_stage
from ..train.stage import TrainingSettings
from .peak_memory import PeakMemory
from .peer import (
    Settings,
    distinct,
    kept_indices,
    prune_by_ratio,
    search_ratio,
    total_macs,
    without_fused_attention,
    zeroed,
)
from .records import PeerCheck, PeerFailure, PeerResult

SPREAD = 1e-9  # by which values are made distinct: of float64, and nothing to float32


@dataclass(frozen=True)
class Task:
    """A recipe, and the number of MACs to come near to, with widths rounded to `align`."""

    recipe: Recipe
    macs: int
    align: int
    settings: Settings
    folder: str

    def write(self) -> Path:
        path = Path(self.folder) / "task.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(path, _TASK.dump_json(self).decode())
        return path


_TASK = TypeAdapter(Task)


@dataclass
class Progress:
    """How far the process came, and what it has found out until then: the fields of `PeerResult`."""

    align: int
    stage: str = "start"
    ratio: float | None = None
    seconds: float | None = None
    search_seconds: float | None = None
    peak_bytes: int | None = None
    macs: Counts | None = None
    params: int | None = None
    gate: PeerCheck | None = None
    quality: Quality | None = None

    def results(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if value is not None and name != "stage"}


def main(path: str) -> None:
    warnings.simplefilter("ignore")
    task = _TASK.validate_json(Path(path).read_bytes())
    progress = Progress(task.align)
    outcome: PeerResult | PeerFailure
    try:
        _do(task, progress)
        outcome = PeerResult.model_validate(progress.results())
    except Exception as error:  # whatever the tool raises is its result
        text = " ".join(str(error).split())
        reason = f"{progress.stage}: {type(error).__name__}: {text}".rstrip(": ")
        outcome = PeerFailure.model_validate({**progress.results(), "error": reason})
    atomic_files.write_text(Path(task.folder) / "result.json", json.dumps(outcome.to_data(), indent=1) + "\n")


def _do(task: Task, progress: Progress) -> None:
    folder, recipe = Path(task.folder), task.recipe
    progress.stage = "reading the model and the data"
    with Stopwatch() as preparing:
        model = build_model(recipe.model, recipe.seed)
        purpose = make_task(recipe.task)
        data = load_data(recipe.data, model, recipe.seed, task=purpose, choosing=recipe.validates)
    if not isinstance(data.example, torch.Tensor):
        raise RecipeError("torch-pruning is compared on models of one input tensor")
    x = data.one
    judge = Judge(purpose, data.test, model, labelled=data.labelled, workers=data.workers)
    quality = {"dense": judge.dense}
    dense_macs = total_macs(model, x)

    def prune(network: nn.Module, x: torch.Tensor, ratio: float, align: int) -> nn.Module:
        torch.manual_seed(recipe.seed)  # for the importance that is random
        # without attn_dim timm's attention would not run
        return prune_by_ratio(network, x, ratio, align, task.settings, attn_dim=True)

    progress.stage = "search for the ratio"
    with Stopwatch() as searching:
        prepared = without_fused_attention(model)
        progress.ratio = ratio = search_ratio(prepared, x, task.macs, task.align, prune)
    progress.search_seconds = searching.seconds
    progress.stage = "prune"
    with Stopwatch() as pruning, PeakMemory() as peak:
        slim = prune(without_fused_attention(model), x, ratio, task.align).eval()
    progress.seconds, progress.peak_bytes = preparing.seconds + pruning.seconds, peak.bytes

    progress.stage = "count"
    slim_macs = total_macs(slim, x)
    progress.macs = Counts(dense=dense_macs, slim=slim_macs, cut=dense_macs / slim_macs)
    progress.params = sum(parameter.numel() for parameter in slim.parameters())
    progress.stage = "forward"
    quality["pruned"] = judge(slim)
    progress.stage = "what was kept"
    progress.gate = _check(model, prune, ratio, task, data, folder)
    if recipe.finetune:
        progress.stage = "fine-tune"
        reporter = Reporter(Console(file=io.StringIO()))
        settings = TrainingSettings(recipe.finetune, folder, "slim", recipe.seed)
        train_stage(settings, slim, data, purpose, reporter)
    progress.stage = "forward"
    quality["final"] = judge(slim)
    progress.quality = quality_record(quality, not recipe.model.trained)
    progress.stage = "export"
    export_onnx(slim, data.example, folder / "slim.onnx")


def _check(model: nn.Module, prune: Any, ratio: float, task: Task, data: Data, folder: Path) -> PeerCheck:
    """The same cut in float64 against the dense network with all that was removed set to zero; and what was kept."""
    assert isinstance(data.example, torch.Tensor)
    x = data.example.double()
    dense = distinct(without_fused_attention(model), SPREAD).eval()
    slim = prune(copy.deepcopy(dense), x[:1], ratio, task.align).eval()
    try:
        kept = kept_indices(dense, slim)
    except PlanError as error:  # the tool has done what it does; what that is can't be told
        return PeerCheck(max_rel=None, detail=str(error))
    held = {f"{key}/{axis}": index for key, axes in kept.items() for axis, index in enumerate(axes)}
    atomic_files.write(folder / "kept.safetensors", lambda aside: save_file(held, aside))
    with torch.no_grad():
        expected, results = zeroed(dense, kept)(x), slim(x)
    return PeerCheck(max_rel=float((results - expected).abs().max() / expected.abs().max()))


class Stopwatch:
    """Takes the seconds that a block takes, also of one that raises."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start


if __name__ == "__main__":
    main(sys.argv[1])
