"""Writes the text of a recipe for an inspected model and its data."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import strict_yaml
from ..calibration.batches import BATCH
from ..errors import RecipeError
from ..messages import shown
from ..models import CodeSpec, ModelSpec, RunSpec, TimmSpec, spec_from_text
from ..models.sources.timm import missing_weights
from ..recipe import check_recipe
from ..tasks import TASKS
from .inspection import SMALL, Folder, Network, look_at_folder, look_at_model
from .own_data import look_at_own_data
from .task_inference import is_classes

DIGITS = 10  # classes of the digits
MANY = 200  # images from which on a folder is judged by whole images, and not by crops
_CALIBRATION = 256
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # mean and std
_TRAINING, _TUNING = 20_000, 10_000  # images that are seen while training; epochs follow


_Use = tuple[dict[str, Any], bool, int, str]  # the section `data`, whether it has labels, how many samples, a comment


@dataclass(frozen=True)
class FirstRecipe:
    """The text of a recipe, the default name of its file, and notes for the user, a line each."""

    text: str
    name: str
    notes: tuple[str, ...]


def first_recipe(
    model: str,
    data: str | Path | None = None,
    *,
    kwargs: Mapping[str, Any] | str | None = None,
    weights: str | None = None,
    code: str | None = None,
    input_size: tuple[int, ...] | None = None,
    out: str | Path | None = None,
    task: str | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> FirstRecipe:
    """Writes a recipe for a model that a command line names, and a folder of images.

    Args:
        model: A timm name, `net.py:Net`, `package.module:function`, or the folder of a finished run.
        data: Class folders, a folder of images, or `file.py:function` that returns datasets. Without it, the data of
            the run; or the digits for a network with ten outputs and no weights; else sample photographs.
        kwargs: Arguments for the model, also as a JSON object.
        weights: A file of weights for it.
        code: The file that defines the classes of a run's network, where they are the user's own.
        input_size: (channels, height, width), if it is not the one that the model tells.
        out: Where the recipe will be written. In another folder than the current one it gets absolute paths.
        task: What the network is for: the name of a task, or `file.py:Task`. By default
            inferred from its outputs, and the targets of own data.
        tell: Gets a line for what is run or set.

    Returns:
        The recipe, checked.

    Raises:
        RecipeError: The model, the data and the task do not fit together.
        ModelError: The model can't be built or run.
    """
    if model.endswith((".yaml", ".yml")):
        raise RecipeError(f"{model} is a recipe already: give a model")
    command = ["structprune", "init", model, *(("--data", str(data)) if data is not None else ())]
    command += ["--task", task] if task else []
    if out is not None and Path(out).parent.resolve() != Path.cwd():
        model = _absolute(model)
        data, weights, code, task = (
            None if path is None else _absolute(str(path)) for path in (data, weights, code, task)
        )
    spec = spec_from_text(model, kwargs, code, weights)
    notes: list[str] = []
    if data is not None and ":" in str(data) and not Path(data).exists():
        network, section, samples = look_at_own_data(spec, str(data), task, tell)
        lines, use = [network.line], _own(section, samples)
    else:
        folder = None if data is None else look_at_folder(data)
        if isinstance(spec, TimmSpec) and not spec.trained:
            spec = _with_weights(spec, folder, notes)
        network = look_at_model(spec, input_size, folder, tell, task)
        lines = [network.line, *([folder.line] if folder else [])]
        use = _data(network, folder, input_size is not None, notes)
    parts = _parts(network, use, notes)
    head = [f"Written by `{shlex.join(command)}`. What was seen:", *lines, *notes]
    text = "".join(f"# {line}\n" for line in head) + "".join(parts)
    check_recipe(strict_yaml.parse(text), "the recipe that init would write")
    return FirstRecipe(text, _file_name(spec), (*lines, *notes))


def write_recipe(recipe: FirstRecipe, out: str | Path | None = None) -> Path:
    """Writes a recipe to a new file.

    Args:
        recipe: What `first_recipe` returned.
        out: The file; by default one of the recipe's name in the current folder.

    Returns:
        The path of the file.

    Raises:
        RecipeError: The file exists, can't be written, or does not end with .yaml.
    """
    path = Path(out or recipe.name)
    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"--out {path}: give the name of a file that ends with .yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(recipe.text)
    except FileExistsError:
        raise RecipeError(f"{path} exists already: give another file by --out, or remove it") from None
    except OSError as error:
        raise RecipeError(f"{path} can't be written: {error.strerror}") from error
    return path


def _absolute(text: str) -> str:
    """Makes a path, or a file and a name in it, absolute; leaves anything else as it is."""
    scheme, place, name = "", text, ""
    if text.startswith("local-dir:"):
        scheme, place = "local-dir:", text.removeprefix("local-dir:")
    elif not Path(text).exists():
        place, colon, name = text.rpartition(":")
        name = colon + name
    return f"{scheme}{os.path.abspath(place)}{name}" if place and Path(place).exists() else text


def _with_weights(spec: TimmSpec, folder: Folder | None, notes: list[str]) -> TimmSpec:
    """Adds timm's weights, if they can be had; but not if the folder has classes of its own."""
    if folder is not None and folder.classes:
        notes.append(f"{spec.name} is trained from scratch on the folder's classes: timm's weights are for others")
        return spec
    reason = missing_weights(spec.name)
    if reason is None:
        return spec.model_copy(update={"pretrained": True})
    notes.append(f"random weights, as {reason}; with weights: model.pretrained: true, or model.weights: FILE")
    return spec


def _parts(network: Network, use: _Use, notes: list[str]) -> list[str]:
    """The sections of the recipe."""
    data, labelled, images, comment = use
    trained, batch = network.spec.trained, _batch(images)
    if not trained and not labelled and not isinstance(network.spec, TimmSpec):
        notes.append("no weights were given, so what is pruned is a random network: add model.weights: FILE")
    parts = [f"model: {_flow(_model(network.spec))}\n", f"\n# {comment}\ndata: {_flow(data)}\n", _task(network)]
    if labelled and not trained:
        parts.append(
            "\n# The dense network, from scratch; leave it out where model.weights brings trained ones.\n"
            f"train: {{epochs: {_epochs(_TRAINING, images)}, {batch}lr: 2.0e-3, weight_decay: 0.05, warmup_epochs: 1}}"
            "\n"
        )
    share, allocation = (0.5, "") if labelled else (0.75, _allocation(data))
    parts.append(
        "\nprune:\n  criterion: l1 # `structprune criteria` lists the others\n"
        f"{allocation}"
        f"  budget: {{macs: {share}}} # the share of multiply-adds that may stay; or {{speedup: 1.5}}, or\n"
        "  # {quality_drop: 0.01}: the smallest network that loses no more\n"
    )
    if labelled:
        rate = "5.0e-4" if trained else "1.0e-3"
        epochs = _epochs(_TUNING if trained else _TRAINING, images)
        parts.append(f"\nfinetune: {{epochs: {epochs}, {batch}lr: {rate}, weight_decay: 0.05}}\n")
    else:
        last = ", temperature" if TASKS[network.task["name"]].classes else ""
        parts.append(f"\nrecover: [means, least_squares{last}] # without labels or training\n")
    parts.append("\nruntime: {threads: 1, batch: 1} # what the network is made for: onnxruntime on this CPU\n")
    parts.append("\nbench: {seconds: 5}\n")
    return parts


def _task(network: Network) -> str:
    """The section of the task, if it is not the default one."""
    if network.task == {"name": "classification"}:
        return ""
    note = "; data_range is the span of the targets' values" if network.task["name"] == "regression" else ""
    section = {**network.task, **({"data_range": 1.0} if note else {})}
    return f"\n# What quality is measured by{note}.\ntask: {_flow(section)}\n"


def _allocation(data: Mapping[str, Any]) -> str:
    """The line that shares the budget by what pruning each group costs, if there are enough images to measure it."""
    enough = data.get("calibration", {}).get("images", 0) > 2 * BATCH
    return "  allocation: sensitivity # by what each group's cut costs on calibration images\n" if enough else ""


def _own(section: dict[str, Any], samples: int) -> _Use:
    """Data of the user's own function."""
    if section.get("labels", True):
        return section, True, samples, "Datasets of your own: what is learned from, and what quality is measured on."
    section = {**section, "calibration": {"images": max(2, min(_CALIBRATION, samples))}}
    return section, False, samples, "Samples without labels: quality is the likeness to the dense network."


def _data(network: Network, folder: Folder | None, sized: bool, notes: list[str]) -> _Use:
    spec, size = network.spec, network.sizes[0]
    side: Any = size[0] if size[0] == size[1] else list(size)
    if folder is None:
        return _data_of_run(spec) or _samples(network, sized)
    sizes: dict[str, Any] = {} if network.says_images and not sized else {"image_size": side}
    crops = folder.images < MANY and network.own_size and not sized
    labelled = is_classes(network.task) and bool(folder.classes) and network.outputs == len(folder.classes)
    if not network.says_images and spec.trained and (labelled or not crops):
        mean, std = _IMAGENET if network.channels == 3 else ([0.449], [0.226])
        sizes |= {"mean": mean, "std": std}
        notes.append(f"{spec.name} does not say its images' mean and std: the recipe has ImageNet's, set the true ones")
    if labelled:
        held_out = folder.split[-1] if len(folder.split) > 1 else ""
        comment = f"Quality is measured on {held_out}." if held_out else "A fifth of each class is held out."
        return {"source": "folder", "path": str(folder.path), **sizes}, True, folder.training, comment
    if folder.classes and not is_classes(network.task):
        notes.append(
            f"{folder.path} holds classes, which task {network.task['name']} has no use for: no labels are taken"
        )
    elif folder.classes:
        notes.append(
            f"the outputs of {spec.name} ({network.outputs or 'no row of scores'}) are not the {len(folder.classes)} "
            f"classes of {folder.path}: the images are taken without labels"
        )
    comment = "Quality is the likeness to the dense network on held-out images."
    if crops:
        calibration: dict[str, Any] = {"images": _CALIBRATION, "augment": True}
        data = {"source": "images", "path": str(folder.path), "crops": 64, "calibration": calibration}
    else:
        calibration = {"images": min(_CALIBRATION, max(2, folder.images // 2))}
        data = {"source": "folder", "path": str(folder.path), "labels": False, **sizes, "calibration": calibration}
    return data, False, folder.training, comment


def _samples(network: Network, sized: bool) -> _Use:
    """Data that ships with packages: the digits, or photographs."""
    if not network.spec.trained and network.outputs == DIGITS and not isinstance(network.spec, TimmSpec):
        side = next((s for s in network.sizes if s == (SMALL, SMALL)), network.sizes[0])
        if side[0] == side[1]:
            data = {"source": "digits", "image_size": side[0]}
            return data, True, 1437, "scikit-learn's digits, as an example; give your own images by --data FOLDER."
    if not network.own_size or sized:
        raise RecipeError(f"no samples are made for {network.spec.name}, which takes {network.takes}: give --data")
    data = {"source": "images", "crops": 64, "calibration": {"images": _CALIBRATION, "augment": True}}
    return (
        data,
        False,
        0,
        "Sample photographs; give your own by --data FOLDER. Quality is likeness to the dense network.",
    )


def _data_of_run(spec: ModelSpec) -> _Use | None:
    """The data of the run that made a slim network; None if its folder does not tell."""
    path = Path(spec.run) / "recipe.yaml" if isinstance(spec, RunSpec) else None
    if path is None or not path.is_file():
        return None
    try:
        recipe = strict_yaml.read(path)
        data = {key: value for key, value in recipe["data"].items() if value is not None}
        labelled = bool(recipe.get("train") or recipe.get("finetune"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"{path} is not a recipe: {shown(str(error))}; give --data FOLDER") from error
    if not labelled and "calibration" not in data:
        data["calibration"] = {"images": _CALIBRATION}
    return data, labelled, 1437 if data.get("source") == "digits" else 0, "As in the run's own recipe."


def _model(spec: ModelSpec) -> dict[str, Any]:
    fields = spec.model_dump(mode="json")
    return {key: value for key, value in fields.items() if value not in (None, False, {}, "")}


def _epochs(images_seen: int, images: int) -> int:
    return min(50, max(5, math.ceil(images_seen / images))) if images else 5


def _batch(images: int) -> str:
    """The batch size, if there are so few images that the usual 64 would give less than two batches."""
    return f"batch_size: {max(2, 2 ** int(math.log2(images / 2)))}, " if 4 <= images < 128 else ""


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True).strip()


def _file_name(spec: ModelSpec) -> str:
    if isinstance(spec, RunSpec):
        return f"{Path(os.path.abspath(spec.run)).name}-again.yaml"
    name = spec.name.rpartition(":")[2] if isinstance(spec, CodeSpec) else spec.name.rpartition("/")[2]
    return f"{name.rpartition(':')[2].lower() or 'model'}.yaml"
