"""Data that is held in memory, as tensors: what digits and crops of images are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ..calibration.batching import one_batch
from ..errors import RecipeError
from .record import Data
from .sources import load_data
from .spec import DataSpec


@dataclass(frozen=True)
class Tensors:
    """Images as float32 of shape (n, channels, height, width), normalised as the model wants them, and their labels."""

    example: Tensor
    test: Tensor
    test_labels: Tensor | None = None
    train: Tensor | None = None
    train_labels: Tensor | None = None
    calibration: Tensor | None = None
    calibration_labels: Tensor | None = None

    @classmethod
    def of(cls, data: Data) -> Tensors:
        """The tensors of data that is in memory."""
        calibration = None if data.calibration is None else one_batch(data.calibration)
        return cls(
            data.example,  # type: ignore[arg-type]
            *_pair(data.test),
            *_pair(data.train),
            None if calibration is None else calibration.inputs.args[0],
            None if calibration is None else calibration.labels,
        )


def load_tensors(spec: DataSpec, model: nn.Module, seed: int) -> Tensors:
    return Tensors.of(load_data(spec, model, seed))


def _pair(dataset: Any) -> tuple[Tensor, Tensor | None]:
    if dataset is None:
        return None, None  # type: ignore[return-value]
    if not isinstance(dataset, TensorDataset):
        raise RecipeError("this command takes data that is held in memory: use source=digits or source=images")
    images, *labels = dataset.tensors
    return images, labels[0] if labels else None
