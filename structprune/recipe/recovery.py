"""How the weights that stay make up for what was removed: the steps of `recover` in a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from ..names import unknown
from ..specs import Number, Strict


class MeansSpec(Strict):
    """Removed channels leave their mean in the offsets of the layers that consumed them."""

    method: Literal["means"] = Field(default="means", description="the step's name")
    source: Literal["calibration", "batchnorm"] = Field(
        default="calibration", description="where the means are from: images, or γ and β of BatchNorms"
    )


class LeastSquaresSpec(Strict):
    """Layers that lost inputs are fitted to the dense network's outputs: all weights, or one factor an input channel.

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


class BatchNormSpec(Strict):
    """Running means and variances are taken anew on the calibration images."""

    method: Literal["batchnorm"] = Field(default="batchnorm", description="the step's name")


RECOVERIES: dict[str, type[BaseModel]] = {
    "means": MeansSpec,
    "least_squares": LeastSquaresSpec,
    "batchnorm": BatchNormSpec,
}
METHODS = tuple(RECOVERIES)


def _named(step: Any) -> Any:
    """A step that is given by its name alone."""
    name = step.get("method") if isinstance(step, dict) else step
    if isinstance(name, str) and name not in METHODS:
        raise ValueError(unknown("recovery", name, METHODS))
    return {"method": step} if isinstance(step, str) else step


Recovery = MeansSpec | LeastSquaresSpec | BatchNormSpec
RecoverSpec = Annotated[Annotated[Recovery, Field(discriminator="method")], BeforeValidator(_named)]


def check_order(steps: Sequence[Recovery]) -> None:
    """Raises ValueError for steps that come twice, and for means after what has made up for them already."""
    methods: list[str] = [step.method for step in steps]
    for method in METHODS:
        if methods.count(method) > 1:
            raise ValueError(f"{method} is there {methods.count(method)} times: once does it all")
    if "means" in methods:
        before = methods[: methods.index("means")]
        if before:
            raise ValueError(
                f"means come after {before[-1]}, which has made up for the removed channels' means already: put them "
                "first"
            )


def needs_images(step: Recovery) -> bool:
    return not (isinstance(step, MeansSpec) and step.source == "batchnorm")
