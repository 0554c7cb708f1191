"""How images are made into a model's input: size, mean, std, interpolation and crop, from its own configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import RecipeError
from .spec import AugmentSpec, PreprocessingKeys


@dataclass(frozen=True)
class Preprocessing:
    """What a model wants of its images. Mean and std have one number a channel."""

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    notes: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """PIL's name of images of so many channels."""
        return "L" if self.channels == 1 else "RGB"

    def described(self) -> dict[str, Any]:
        """How an image becomes an input, as plain data for whoever runs the network elsewhere."""
        crop = {"crop_pct": self.crop_pct, "crop_mode": self.crop_mode}
        return described(self.channels, self.size, self.mean, self.std, self.interpolation) | crop

    def transform(self, augment: AugmentSpec | None = None) -> Callable[[Any], Any]:
        """From a PIL image to a normalised float32 tensor (channels, height, width), by timm; changed if `augment`."""
        from timm.data import create_transform

        return create_transform(
            (self.channels, *self.size),
            is_training=augment is not None,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            **({} if augment is None else augment.as_timm()),
        )


def described(
    channels: int, size: Sequence[int], mean: Sequence[float], std: Sequence[float], interpolation: str
) -> dict[str, Any]:
    """How an image becomes an input, as plain data.

    Args:
        channels: 1 for grey images.
        size: (height, width) in pixels.
        mean: What is taken from values from 0 to 1, for each channel.
        std: What the rest is divided by, likewise.
        interpolation: How it is resized.

    Returns:
        `input_size` (channels, height, width), `mean`, `std` and `interpolation`, with timm's names.
    """
    sizes = [int(channels), *map(int, size)]
    numbers = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
    return {"input_size": sizes, **numbers, "interpolation": interpolation}


def config_of(model: nn.Module, keys: PreprocessingKeys | None = None) -> tuple[dict[str, Any], list[str]]:
    """What images a model takes (see `models.inputs`), and a note about what was assumed because no key says it."""
    from ..models.inputs import resolve_model_data_config, says_its_images

    config = resolve_model_data_config(model)
    assumed = [key for key in ("image_size", "mean", "std") if keys is None or getattr(keys, key) is None]
    if says_its_images(model) or not assumed:
        return config, []
    channels, height, width = config["input_size"]
    usual = f"{', '.join(assumed)} are taken as usual ({channels}×{height}×{width}, ImageNet's mean and std)"
    advice = f": set data.{', data.'.join(assumed)} if it was trained with others" if keys is not None else ""
    return config, [f"{type(model).__name__} does not say what images it wants: {usual}{advice}"]


def preprocessing(model: nn.Module, spec: PreprocessingKeys) -> Preprocessing:
    """The preprocessing that the model's configuration and the recipe ask for.

    Raises:
        RecipeError: the model does not take images, or mean or std has another number of channels.
    """
    config, notes = config_of(model, spec)
    channels, height, width = config["input_size"]
    if spec.image_size is not None:
        height, width = spec.image_size if isinstance(spec.image_size, tuple) else (spec.image_size, spec.image_size)
    if channels not in (1, 3):
        raise RecipeError(
            f"images have 1 or 3 channels and the model wants {channels}: give data of your own by file.py:function"
        )
    mean, std = (
        _per_channel(own if own is not None else config[key], channels, key, exact=own is not None)
        for key, own in (("mean", spec.mean), ("std", spec.std))
    )
    return Preprocessing(
        channels,
        (int(height), int(width)),
        mean,
        std,
        spec.interpolation or config["interpolation"],
        spec.crop_pct or config.get("crop_pct") or 0.875,
        config.get("crop_mode") or "center",
        tuple(notes),
    )


def _per_channel(values: Any, channels: int, key: str, exact: bool) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) == channels:
        return numbers
    if channels == 1 and not exact:
        return (sum(numbers) / len(numbers),)
    if len(numbers) == 1:
        return numbers * channels
    raise RecipeError(f"data.{key} has {len(numbers)} numbers and the model's images {channels} channels")
