"""`finetune` in a recipe: what the slim network starts from, and how long it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..plan_schema import Amounts
from ..strict_specs import Whole
from ..train.spec import TrainSpec

Start = Literal["slim", "scratch", "rewind"]


class FinetuneSpec(TrainSpec):
    """Training of the slim network: on from what was cut, or for a baseline from other weights in the same structure.

    `start: scratch` trains it from new weights, as the model's own code draws them (Liu et al. 2019, Rethinking the
    Value of Network Pruning): with `equal: epochs` that is their Scratch-E, with `equal: compute` their Scratch-B.
    `start: rewind` takes the weights that the dense network had after epoch `rewind_to` of `train` (Frankle et al.
    2019).
    """

    start: Start = Field(
        default="slim",
        description="what it starts from: the `slim` network as cut and recovered, `scratch` (new random weights) or "
        "`rewind` (the dense network's weights of an early epoch)",
    )
    rewind_to: Whole | None = Field(
        default=None, ge=0, description="the epoch of `train` whose weights `rewind` takes; 0: those before training"
    )
    equal: Literal["epochs", "compute"] = Field(
        default="epochs",
        description="what `epochs` stands for: so many `epochs`, or as many more as take the `compute` of so many "
        "epochs of the dense network, in MACs",
    )

    @model_validator(mode="after")
    def _rewinds(self) -> FinetuneSpec:
        if self.start == "rewind" and self.rewind_to is None:
            raise ValueError("start=rewind needs rewind_to, the epoch of train whose weights are taken, such as 1")
        if self.start != "rewind" and self.rewind_to is not None:
            raise ValueError(f"rewind_to is for start=rewind, and start is {self.start}: leave it out")
        return self

    @property
    def restarts(self) -> bool:
        """Whether the weights that were cut are given up."""
        return self.start != "slim"


def in_full(spec: FinetuneSpec, macs: Amounts) -> FinetuneSpec:
    """The training with the number of epochs that it lasts, and what is counted in epochs moved with it.

    Args:
        spec: The recipe's `finetune`.
        macs: The MACs of the dense and of the slim network.

    Returns:
        `spec` itself where epochs are equal. Where compute is, one with `epochs` × dense ÷ slim epochs, rounded down,
        and at least `epochs`; warm-up stays as it is.
    """
    epochs = max(spec.epochs, spec.epochs * macs["dense"] // max(macs["slim"], 1))
    if spec.equal == "epochs" or epochs == spec.epochs:
        return spec

    def moved(epoch: int) -> int:
        return round(epoch * epochs / spec.epochs)

    return spec.model_copy(
        update={
            "epochs": epochs,
            "decay_epochs": None if spec.decay_epochs is None else spec.decay_epochs * epochs / spec.epochs,
            "decay_milestones": tuple(moved(epoch) for epoch in spec.decay_milestones),
            "mixup_off_epoch": moved(spec.mixup_off_epoch),
        }
    )
