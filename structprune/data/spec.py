"""The keys that sources of data share in a recipe."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ..specs import Number, RecipePath, Strict, Whole

Interpolation = Literal["bicubic", "bilinear", "nearest", "lanczos"]


class CalibrationSpec(Strict):
    """Images without labels for criteria, allocation and recovery; none of them is held out to measure quality.

    By default those of `data`: training images where there are some, else crops of the half of the files that is not
    held out. `path` (a folder) or `files` names others. `augment` flips crops, changes their colours and joins parts of
    two.
    """

    images: Whole = Field(default=256, ge=2)
    path: RecipePath | None = None
    files: tuple[RecipePath, ...] = ()
    augment: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> CalibrationSpec:
        if self.path and self.files:
            raise ValueError("path and files both say where the images are: set one of them")
        return self


class DataSpec(Strict):
    """Data in a recipe. `source` is a registered name, or `file.py:function`."""

    source: str
    calibration: CalibrationSpec | None = None

    @property
    def labelled(self) -> bool:
        """Whether the data has labels to train and measure with."""
        return False

    @property
    def gives_classes(self) -> bool:
        """Whether its labels are class numbers; a user's own may be anything."""
        return self.labelled


class PreprocessingKeys(Strict):
    """What of the model's own configuration is to be otherwise. `image_size` is pixels, or [height, width]."""

    image_size: Whole | tuple[Whole, Whole] | None = None
    mean: tuple[Number, ...] | None = None
    std: tuple[Number, ...] | None = None
    interpolation: Interpolation | None = None
    crop_pct: Number | None = Field(default=None, gt=0, le=1)

    @field_validator("image_size")
    @classmethod
    def _positive(cls, size: Any) -> Any:
        if size is not None and min(size if isinstance(size, tuple) else (size,)) < 1:
            raise ValueError(f"image_size={size}: give pixels, from 1 on")
        return size

    @field_validator("std")
    @classmethod
    def _spread(cls, std: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if std is not None and (not std or min(std) <= 0):
            raise ValueError(f"std={list(std)}: give numbers over 0, one a channel")
        return std


class AugmentSpec(Strict):
    """How training images are changed, with timm's names."""

    scale: tuple[Number, Number] = (0.08, 1.0)
    ratio: tuple[Number, Number] = (3 / 4, 4 / 3)
    hflip: Number = Field(default=0.5, ge=0, le=1)
    vflip: Number = Field(default=0.0, ge=0, le=1)
    color_jitter: Number | None = Field(default=0.4, ge=0)
    auto_augment: str | None = None
    reprob: Number = Field(default=0.0, ge=0, le=1)

    _NAMES: ClassVar[dict[str, str]] = {"reprob": "re_prob"}

    def as_timm(self) -> dict[str, Any]:
        """Arguments of `timm.data.create_transform`."""
        return {self._NAMES.get(key, key): value for key, value in self.model_dump().items()}
