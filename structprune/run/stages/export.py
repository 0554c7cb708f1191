"""ONNX files and the saved network; the gate; other formats; int8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...calibration import Batch
from ...calibration.rebatching import rebatched
from ...data import Data
from ...errors import RecipeError
from ...export import FORMATS, Finished, export_onnx, metadata_of, quantize, write_format
from ...ops import Inputs
from ...quality_judge import Judge
from ...recipe import Recipe
from ...records import Plan
from ...report import counted_macs
from ...report.exported_files import ExportedFormat
from ...report.records import Quantised
from ...runtimes.made_up_inputs import made_up_inputs
from ...store import atomic_files, save
from ...verify import Gate, verify
from ...verify.format_files import compare_format
from ..stage import Work, stage
from .surgery import changes_weights

INT8_IMAGES, INT8_BATCH = 128, 8  # on which the ranges of activations are taken


def _exported(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe the exported files depend on."""
    return {"opset": recipe.export.opset, "model": recipe.model.name, "task": recipe.task.name}


@stage(
    "dense_onnx",
    after="choose",
    needs=("dense", "samples"),
    makes=("dense_onnx",),
    spec=_exported,
    read=lambda work: work.folder / "dense.onnx",
)
def export_dense(work: Work, dense: nn.Module, samples: Data) -> None:
    metadata = _metadata(work, samples, None)
    export_onnx(dense, samples.example, work.folder / "dense.onnx", opset=work.spec["opset"], metadata=metadata)


def _metadata(work: Work, samples: Data, plan: Plan | None) -> dict[str, str]:
    images, labels = samples.images, samples.names
    return metadata_of(plan, model=work.spec["model"], task=work.spec["task"], images=images, labels=labels)


@stage(
    "files",
    after="judge_final",
    repeats=False,
    needs=("slim", "plan", "samples"),
    first=("quality.pruned", "quality.final"),  # a network that does not run is said as such
    makes=("slim_onnx", "saved"),
    spec=_exported,
    read=lambda work: {"slim_onnx": work.folder / "slim.onnx", "saved": work.folder},
)
def export_slim(work: Work, slim: nn.Module, plan: Plan, samples: Data) -> None:
    """slim.onnx, slim.safetensors and plan.json."""
    work.reporter.stage("exporting dense and slim to ONNX")
    metadata = _metadata(work, samples, plan)
    export_onnx(slim, samples.example, work.folder / "slim.onnx", opset=work.spec["opset"], metadata=metadata)
    save(slim, plan, work.folder)


@stage(
    "gate",
    after="files",
    needs=("dense", "slim", "plan", "samples", "slim_onnx", "saved"),
    makes=("gates.final", "gates.macs"),
    spec=changes_weights,
)
def gate(
    work: Work, dense: nn.Module, slim: nn.Module, plan: Plan, samples: Data, slim_onnx: Path, saved: Path
) -> Mapping[str, Any]:
    """The acceptance gate, and an independent count of MACs."""
    work.reporter.stage("acceptance gate: masked dense = slim = reloaded = ONNX")
    final: Gate = verify(dense, slim, plan, samples.example, trained=bool(work.spec), folder=saved, onnx=slim_onnx)
    return {"gates.final": final, "gates.macs": counted_macs(plan, dense, slim, samples.one)}


@stage(
    "formats",
    after="gate",
    needs=("slim", "plan", "samples", "slim_onnx", "saved", "gates.*"),
    makes=("formats", "format_files"),
    spec=lambda recipe: {**_exported(recipe), "formats": recipe.export.formats, "spec": recipe.model},
    when=lambda recipe: bool(recipe.export.formats),
    read=lambda work: {"formats": _read_formats(work.folder), "format_files": work.folder},
    sound_only=True,
    title="slim in other formats",
)
def export_formats(
    work: Work, slim: nn.Module, plan: Plan, samples: Data, slim_onnx: Path, saved: Path, gates: dict[str, Gate]
) -> None:
    """Writes each format and compares its files with slim; those that differ are not kept."""
    finished = Finished(
        slim,
        Inputs.of(samples.example),
        slim_onnx,
        saved / "slim.safetensors",
        model=work.spec["spec"],
        metadata=_metadata(work, samples, plan),
    )
    entries = []
    for name in work.spec["formats"]:
        work.reporter.stage(f"writing {name}, and comparing it with slim")
        entries.append(_in_format(name, finished, work.folder))
        if reason := entries[-1].reason:
            work.reporter.note(f"{name} is not handed out: {reason}")
    atomic_files.write_text(work.folder / "formats.json", json.dumps([entry.to_data() for entry in entries]))


def _in_format(name: str, finished: Finished, folder: Path) -> ExportedFormat:
    record = FORMATS[name]
    if reason := write_format(name, finished, folder):
        return ExportedFormat(format=name, files={}, comparison=None, reason=reason)
    compared = compare_format(record, finished, folder)
    sizes = {file: (folder / file).stat().st_size for file in record.files}
    if compared.passed:
        return ExportedFormat(format=name, files=sizes, comparison=compared.record())
    for file in sizes:
        (folder / file).unlink()
    return ExportedFormat(format=name, files={}, comparison=compared.record(), reason=compared.detail)


def _read_formats(folder: Path) -> list[ExportedFormat]:
    entries = json.loads((folder / "formats.json").read_text(encoding="utf-8"))
    return [ExportedFormat.model_validate(entry) for entry in entries]


def _makes_int8(recipe: Recipe) -> bool:
    return recipe.int8


@stage(
    "int8",
    after="formats",
    needs=("dense_onnx", "slim_onnx", "samples", "judge", "gates.*"),
    makes=("int8", "int8_files"),
    when=_makes_int8,
    read=lambda work: {"int8": _read_int8(work.folder), "int8_files": work.folder},
    sound_only=True,
    title="dense and slim in int8",
)
def quantise(
    work: Work, dense_onnx: Path, slim_onnx: Path, samples: Data, judge: Judge, gates: dict[str, Gate]
) -> None:
    """Writes dense and slim in int8; how good and how large each is."""
    assert samples.calibration is not None
    work.reporter.stage("quantising dense and slim to int8 by onnxruntime, on calibration images")
    batches, result = rebatched(samples.calibration, INT8_BATCH, INT8_IMAGES), {}
    for kind, source in (("dense", dense_onnx), ("slim", slim_onnx)):
        target = work.folder / f"{kind}-int8.onnx"
        quantize(source, target, [_feed(batch, list(made_up_inputs(source))) for batch in batches])
        quality = judge(target)
        result[f"{kind}-int8"] = Quantised(quality=quality.value, kl=quality.kl, bytes=target.stat().st_size)
    text = json.dumps({name: entry.to_data() for name, entry in result.items()})
    atomic_files.write_text(work.folder / "int8.json", text)


def _read_int8(folder: Path) -> dict[str, Quantised]:
    entries = json.loads((folder / "int8.json").read_text(encoding="utf-8"))
    return {name: Quantised.model_validate(entry) for name, entry in entries.items()}


def _feed(batch: Batch, names: list[str]) -> dict[str, np.ndarray]:
    """A batch as an ONNX file of these inputs takes it. Raises RecipeError where it has other inputs."""
    tensors = [x for x in batch.inputs.flat() if isinstance(x, Tensor)]
    if len(tensors) != len(names):
        raise RecipeError(f"int8 needs the ONNX file's inputs ({', '.join(names)}), and a batch has {len(tensors)}")
    return {name: x.numpy() for name, x in zip(names, tensors, strict=True)}
