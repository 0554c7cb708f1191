"""Types of what the public functions take: an editor completes the names, and a type checker refuses misspelt ones.

Names that a registry holds are here as those that come with the package; any other text is taken too, as users register
their own. `tests/test_typing.py` holds these lists against the registries.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypedDict


class Budget(TypedDict, total=False):
    """What a slim network may use, by any of these names.

    Attributes:
        macs: multiply-adds: up to 1 a fraction of the dense network's, over 1 an absolute number.
        params: parameters, likewise.
        channels: units of all groups, likewise.
        latency_ms: milliseconds of a forward pass, as the costs of a runtime predict them.
        speedup: how many times as fast as the dense network, likewise.

    Example:
        >>> from structprune.typing import Budget
        >>> budget: Budget = {"macs": 0.5, "params": 100_000}
    """

    macs: float
    params: float
    channels: float
    latency_ms: float
    speedup: float


Form: TypeAlias = Literal["module", "graph"]
CriterionName: TypeAlias = Literal[
    "apoz",
    "bn_expectation",
    "bn_variance",
    "chip",
    "fpgm",
    "fpgm_mix",
    "group_l1",
    "group_l2",
    "l1",
    "l1_greedy",
    "l2",
    "obs",
    "osscar",
    "random",
    "slimming",
    "taylor",
    "taylor_activation",
    "thinet",
    "thinet_forward",
    "variance",
]
AllocationName: TypeAlias = Literal["global", "knapsack", "sensitivity", "threshold", "uniform"]
Combination: TypeAlias = Literal["leading", "sum", "mean", "max", "normalised"]
Need: TypeAlias = Literal["bn", "activations", "moments", "expected", "gradients", "samples", "widths"]
RecoveryName: TypeAlias = Literal["means", "least_squares", "batchnorm", "polish", "temperature"]


class Means(TypedDict, total=False):
    """The recovery `means` with its options (see docs/recipes.md).

    Attributes:
        method: its name.
        source: where the means are from.
    """

    method: Literal["means"]
    source: Literal["calibration", "batchnorm"]


class LeastSquares(TypedDict, total=False):
    """The recovery `least_squares` with its options.

    Attributes:
        method: its name.
        weights: all weights, or one factor for each input channel.
        ridge: how strongly weights are held to what they were; None: cross-validated for each layer.
        fitted: all layers behind the cut, or the consumers alone, which lost inputs.
        shortcuts: whether the last layer of a residual branch makes up for what its shortcut lost.
        attention: whether, with all weights, the channels of heads that lost some are mixed.
    """

    method: Literal["least_squares"]
    weights: Literal["full", "scales"]
    ridge: float | None
    fitted: Literal["behind", "consumers"] | None
    shortcuts: bool | None
    attention: bool


class BatchNorm(TypedDict):
    """The recovery `batchnorm`, which has no options.

    Attributes:
        method: its name.
    """

    method: Literal["batchnorm"]


class Temperature(TypedDict):
    """The recovery `temperature`, which has no options.

    Attributes:
        method: its name.
    """

    method: Literal["temperature"]


class Polish(TypedDict, total=False):
    """The recovery `polish` with its options.

    Attributes:
        method: its name.
        weights: all weights, or the scales and shifts of norms, and biases.
        block_epochs: epochs in which each block learns by itself.
        epochs: epochs after these, in which all blocks learn together.
        lr: Adam's learning rate, at its highest.
        augment: whether images are flipped, cropped and mixed with each other.
    """

    method: Literal["polish"]
    weights: Literal["full", "scales"]
    block_epochs: int
    epochs: int
    lr: float
    augment: bool


class OwnRecovery(TypedDict, total=False):
    """A recovery of a user's own, a function of a file.

    Attributes:
        method: `file.py:function`.
        kwargs: its arguments.
    """

    method: str
    kwargs: dict[str, Any]


RecoveryStep: TypeAlias = RecoveryName | str | Means | LeastSquares | BatchNorm | Polish | Temperature | OwnRecovery
