"""Training in a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..messages import unknown
from ..strict_specs import Number, Strict, Whole, only_read
from ..timm_names import optimizers
from .method import AnyMethodSpec

_REFUSED = {"adahessian": "it needs second derivatives of the loss, which the loop does not take"}


class TrainSpec(Strict):
    """Supervised training; optimisers and schedules are timm's, by its names.

    With `patience`, a tenth of the training data (or the data's own validation split) is kept to measure each epoch by;
    after so many epochs without a better one training ends, and the best epoch's weights are kept.
    """

    epochs: Whole = Field(ge=1, description="how often the training data is gone through")
    batch_size: Whole = Field(default=64, ge=2, description="samples in a step")
    optimizer: str = Field(default="adamw", description="one of timm's optimisers by its name")
    lr: Number = Field(gt=0, description="the highest learning rate")
    weight_decay: Number = Field(default=0.0, ge=0, description="as the optimiser takes it")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="how the learning rate falls")
    warmup_epochs: Whole = Field(default=0, ge=0, description="epochs in which the learning rate rises to `lr`")
    patience: Whole | None = Field(
        default=None, ge=1, description="end after so many epochs without a better one, and keep the best"
    )
    methods: tuple[AnyMethodSpec, ...] = Field(default=(), description="what else the training does: names or mappings")

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if only_read(info):
            return name
        if name not in optimizers():
            raise ValueError(unknown("optimizer", name, optimizers()))
        if reason := unusable(name):
            raise ValueError(f"optimizer {name} can't be used here: {reason}")
        return name

    @model_validator(mode="after")
    def _warm_up_ends(self) -> TrainSpec:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} leaves nothing of epochs={self.epochs}")
        return self


def unusable(name: str) -> str | None:
    """Why one of timm's optimisers can't train here, if it can't: it is made once, for a small parameter."""
    if name in _REFUSED:
        return _REFUSED[name]
    import torch
    from timm.optim import create_optimizer_v2

    try:
        create_optimizer_v2([torch.nn.Parameter(torch.zeros(2, 2))], opt=name, lr=0.1, weight_decay=0.01)
    except Exception as error:  # whatever an optimiser asks for: a GPU, another package
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None
