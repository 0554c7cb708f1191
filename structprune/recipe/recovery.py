"""What a recipe may say of `recover`: the keys of each step, and the registry of recoveries.

Nothing here imports torch, so that a recipe can be read without it. A recovery that comes later has its spec in its own
file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from ..registry import SpecRegistry
from ..strict_specs import Number, Strict, Whole
from ..user_code_calls import CodeName

if TYPE_CHECKING:
    from ..recover.recovery import Recovery


class RecoverySpec(Strict):
    """A step of `recover` in a recipe. `method` is registered, or `file.py:Name`.

    `comes_first` says why no other step may come before it: what each of them already does. It is empty where any may.
    `comes_last` says likewise why none may come after it.
    """

    comes_first: ClassVar[str] = ""
    comes_last: ClassVar[str] = ""

    method: str = Field(description="the step's name")

    @property
    def needs_images(self) -> bool:
        """Whether it looks at calibration images; else it gets one batch of any, which has their sizes."""
        return True


class MeansSpec(RecoverySpec):
    """Removed channels leave their mean in the offsets of the layers that consumed them."""

    comes_first = "already corrects the means"

    method: Literal["means"] = Field(default="means", description="the step's name")
    source: Literal["calibration", "batchnorm"] = Field(
        default="calibration", description="where the means are from: images, or γ and β of BatchNorms"
    )

    @property
    def needs_images(self) -> bool:
        return self.source == "calibration"


class LeastSquaresSpec(RecoverySpec):
    """Layers behind the cut are fitted to the dense network's outputs: all weights, or one factor an input channel of
    those that lost inputs.

    With all weights, heads of attention that lost channels make the mixtures of them that keep logits and values best.

    `ridge` holds them near what they were, in shares of the mean variance of an input; by default it is chosen for each
    layer by cross-validation.
    """

    method: Literal["least_squares"] = Field(default="least_squares", description="the step's name")
    weights: Literal["full", "scales"] = Field(
        default="full", description="all weights, or one factor for each input channel"
    )
    ridge: Number | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="how strongly weights are held to what they were; by default cross-validated for each layer",
    )
    fitted: Literal["behind", "consumers"] | None = Field(
        default=None,
        description="all layers behind the cut (by default, where all weights are fitted), or its consumers alone",
    )
    shortcuts: bool | None = Field(
        default=None,
        description="whether the last layer of a residual branch makes up for what the shortcut has lost; by default "
        "where all weights are fitted",
    )
    attention: bool = Field(
        default=True, description="with all weights: mix the channels of heads that lost some; else they stay as cut"
    )

    @model_validator(mode="after")
    def _fits_all_weights(self) -> LeastSquaresSpec:
        if self.weights == "scales" and (self.fitted == "behind" or self.shortcuts):
            key = "fitted: behind" if self.fitted == "behind" else "shortcuts: true"
            raise ValueError(
                f"{key} needs weights: full, as one factor a channel is for consumers alone: leave one out"
            )
        return self

    @property
    def fits_behind(self) -> bool:
        """Whether layers are fitted that lost no inputs."""
        return self.weights == "full" and self.fitted != "consumers"

    @property
    def fits_sums(self) -> bool:
        """Whether layers make up for what is added to them."""
        return self.weights == "full" and self.shortcuts is not False


class BatchNormSpec(RecoverySpec):
    """Running means and variances are taken anew on the calibration images."""

    method: Literal["batchnorm"] = Field(default="batchnorm", description="the step's name")


class PolishSpec(RecoverySpec):
    """The slim network is trained on the calibration images for a short time, to make what the dense network makes.

    First each block by itself, if that is wanted, then all together. Nothing changes unless that helps on images that
    are held out.
    """

    method: Literal["polish"] = Field(default="polish", description="the step's name")
    weights: Literal["full", "scales"] = Field(
        default="scales", description="all weights, or the scales and shifts of norms, and biases"
    )
    block_epochs: Whole = Field(default=0, ge=0, description="epochs in which each block learns by itself")
    epochs: Whole = Field(default=4, ge=0, description="epochs after these, in which all blocks learn together")
    lr: Number = Field(default=5e-4, gt=0, allow_inf_nan=False, description="Adam's learning rate, at its highest")
    augment: bool = Field(
        default=True, description="other views of the images each time: flipped, cropped, mixed with each other"
    )

    @model_validator(mode="after")
    def _trains(self) -> PolishSpec:
        if not self.block_epochs + self.epochs:
            raise ValueError("block_epochs and epochs are both 0: leave polish out, or raise one")
        return self


class TemperatureSpec(RecoverySpec):
    """Class scores are multiplied by the one number that brings their probabilities nearest to the dense network's.

    Least squares leaves scores too small where it is unsure, so that the network doubts what it knows. Which class is
    the first does not change.
    """

    comes_last = "makes other scores"

    method: Literal["temperature"] = Field(default="temperature", description="the step's name")


class OwnRecoverySpec(RecoverySpec):
    """A recovery of the user's own: `method` is `file.py:function`, called with `kwargs`."""

    method: CodeName = Field(description="`file.py:function`")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="arguments of the function")


RECOVERIES: SpecRegistry[Recovery] = SpecRegistry(
    "recovery",
    "structprune.recover",
    "RECOVERIES",
    {
        "batchnorm": BatchNormSpec,
        "least_squares": LeastSquaresSpec,
        "means": MeansSpec,
        "polish": PolishSpec,
        "temperature": TemperatureSpec,
    },
)
AnyRecoverySpec = Annotated[SerializeAsAny[RecoverySpec], BeforeValidator(RECOVERIES.parser("method", OwnRecoverySpec))]


def check_order(steps: Sequence[RecoverySpec]) -> None:
    """Raises ValueError for steps that come twice, and for one that must come first or last and does not."""
    methods = [step.method for step in steps]
    for method, times in Counter(methods).items():
        if times > 1:
            raise ValueError(f"{method} is there {times} times: once does it all")
    for index, step in enumerate(steps):
        if step.comes_first and index:
            before = methods[index - 1]
            raise ValueError(f"put `{step.method}` before `{before}`: `{before}` {step.comes_first}")
        if step.comes_last and index < len(steps) - 1:
            after = methods[index + 1]
            raise ValueError(f"put `{step.method}` after `{after}`: `{after}` {step.comes_last}")
