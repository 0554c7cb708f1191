"""What a model takes: how images are made for it, and made-up inputs for tracing where there are no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..errors import RecipeError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LazyConv1d, nn.LazyConv2d, nn.LazyConv3d)
_LAYERS = (*_CONVOLUTIONS, nn.Linear, nn.Embedding, nn.RNNBase)
USUAL = 224  # pixels of a side
_known: WeakKeyDictionary[nn.Module, dict[str, Any]] = WeakKeyDictionary()


def resolve_model_data_config(model: nn.Module) -> dict[str, Any]:
    """Gives timm's data configuration of a model.

    If a model has none of its own, the channels are those of its first convolution, and the rest is timm's default
    (224 pixels, ImageNet's mean and deviation).

    Args:
        model: The model.

    Returns:
        `input_size` (channels, height, width), `mean`, `std` and so on.
    """
    from timm.data import resolve_model_data_config as timm_config

    config: dict[str, Any] = timm_config(model)
    first = first_layer(model)
    if not getattr(model, "pretrained_cfg", None) and first is not None and isinstance(first[1], nn.Conv2d):
        config["input_size"] = (first[1].in_channels, *config["input_size"][1:])
    return {**config, **_known.get(model, {})}


def says_its_images(model: nn.Module) -> bool:
    """Whether a model, or where it comes from, says how its images are made, so that no mean and std are assumed."""
    return bool(getattr(model, "pretrained_cfg", None)) or "mean" in _known.get(model, {})


def says_its_size(model: nn.Module) -> bool:
    """Whether a model, or where it comes from, says how large its images are."""
    return bool(getattr(model, "pretrained_cfg", None)) or "input_size" in _known.get(model, {})


def says_its_channels(model: nn.Module) -> bool:
    """Whether a model, where it comes from, or its first layer, a convolution, says how many channels images have."""
    first = first_layer(model)
    return says_its_size(model) or (first is not None and isinstance(first[1], nn.Conv2d))


def remember_config(model: nn.Module, config: dict[str, Any]) -> None:
    """Stores what a model's images are like, for `resolve_model_data_config`, as the model itself does not say."""
    _known[model] = config


def first_layer(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Finds the first registered layer that can take inputs.

    Args:
        model: The model.

    Returns:
        Its path and the module; None if there is none.
    """
    return next(((path, layer) for path, layer in model.named_modules() if isinstance(layer, _LAYERS)), None)


def example_inputs(model: nn.Module, size: tuple[int, ...] | None = None) -> tuple[Tensor, str]:
    """Zeros to trace a model with, and a line that says what they are and why.

    Args:
        model: The model. Its first layer decides the dtype: whole numbers for an embedding, else real ones.
        size: The shape of one sample. By default that of timm's configuration, else what the first layer tells.

    Returns:
        A tensor (1, *size), and for example `input 1×16 of int64, as the first layer, embed, is an Embedding`; an
        empty line if the model's own configuration has the size.

    Raises:
        RecipeError: The size can't be known.
    """
    first = first_layer(model)
    layer = None if first is None else first[1]
    tokens = isinstance(layer, nn.Embedding)
    why = "" if first is None else f"as the first layer, {first[0] or 'the model itself'}, is {_article(first[1])}"
    if size is None and (config := getattr(model, "pretrained_cfg", None)) and config.get("input_size"):
        return torch.zeros(1, *config["input_size"]), ""
    if size is None and (config := _known.get(model)) and "input_size" in config:
        size, why = tuple(config["input_size"]), "as its run says"
    if size is None and isinstance(layer, nn.Conv2d):
        size = (layer.in_channels, USUAL, USUAL)
        why += f" of {layer.in_channels} channels; give --input-size for images other than {USUAL}×{USUAL}"
    if size is None and isinstance(layer, nn.Linear):
        size = (layer.in_features,)
    if size is None:
        raise RecipeError(
            f"nothing says how large the inputs of {type(model).__name__} are: give --input-size, such as 3,224,224 "
            "for an image, or 16 for 16 tokens"
        )
    dtype = torch.int64 if tokens else torch.float32
    inputs = torch.zeros(1, *size, dtype=dtype)
    shape = "×".join(map(str, inputs.shape))
    return inputs, f"input {shape} of {str(dtype).removeprefix('torch.')}" + (f", {why}" if why else "")


def inputs_of_onnx(path: Path) -> Tensor | tuple[Tensor, ...] | None:
    """Zeros of a batch of one as an ONNX file takes them; None if sizes other than the batch are open.

    Args:
        path: The file.

    Returns:
        A tensor, or one for each input where there are several.
    """
    inputs = []
    for entry in onnx.load(path, load_external_data=False).graph.input:
        kind = entry.type.tensor_type
        sizes = [axis.dim_value or None for axis in kind.shape.dim]
        if any(size is None for size in sizes[1:]):
            return None
        dtype = torch.from_numpy(np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))).dtype
        inputs.append(torch.zeros(1, *[size or 1 for size in sizes[1:]], dtype=dtype))
    return inputs[0] if len(inputs) == 1 else tuple(inputs)


def _article(layer: nn.Module) -> str:
    name = type(layer).__name__
    return f"{'an' if name[0] in 'AEIOULR' and name != 'Linear' else 'a'} {name}"
