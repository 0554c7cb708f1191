"""Training in a recipe. Keys that timm's train.py has too have its names and its meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..messages import unknown
from ..strict_specs import Number, Strict, Whole, only_read
from ..timm_names import optimizers
from .method import AnyMethodSpec

if TYPE_CHECKING:
    from ..recipe import PruneSpec

_REFUSED = {"adahessian": "it needs second derivatives of the loss, which the loop does not take"}
_RENAMED = {"optimizer": "opt", "schedule": "sched"}  # keys of 0.1, which are still read


class TrainSpec(Strict):
    """Supervised training, or with a method that gives a loss of its own, training without labels.

    Optimisers, learning rate schedules, mixing of samples and averages of weights are timm's, by the names of its
    train.py. With `patience` or `keep_best`, a tenth of the training data (or the data's own validation split) is kept
    to measure by, and the weights that measured best are those of the trained network.
    """

    epochs: Whole = Field(ge=1, description="how often the training data is gone through")
    batch_size: Whole = Field(default=64, ge=2, description="samples in a forward pass, of all processes together")
    grad_accum_steps: Whole = Field(default=1, ge=1, description="forward passes to an update of the weights")
    opt: str = Field(default="adamw", description="one of timm's optimisers by its name")
    opt_kwargs: dict[str, Any] = Field(default_factory=dict, description="further arguments of the optimiser")
    momentum: Number = Field(default=0.9, ge=0, lt=1, description="of the optimisers that have one")
    lr: Number = Field(gt=0, description="the highest learning rate")
    weight_decay: Number = Field(default=0.0, ge=0, description="as the optimiser takes it; none for biases and norms")
    layer_decay: Number | None = Field(
        default=None, gt=0, le=1, description="what the learning rate is multiplied by for each layer from the last"
    )
    sched: Literal["cosine", "tanh", "step", "multistep", "poly", "wsd", "rsqrt", "constant"] = Field(
        default="cosine", description="how the learning rate falls"
    )
    warmup_epochs: Whole = Field(default=0, ge=0, description="epochs in which the learning rate rises to `lr`")
    warmup_lr: Number | None = Field(default=None, ge=0, description="where warm-up starts; by default lr / 100")
    min_lr: Number | None = Field(default=None, ge=0, description="where the schedule ends; by default lr / 100")
    decay_epochs: Number | None = Field(
        default=None, gt=0, description="epochs between falls (step), or of the last fall (wsd, rsqrt)"
    )
    decay_milestones: tuple[Whole, ...] = Field(default=(), description="epochs after which it falls (multistep)")
    decay_rate: Number = Field(default=0.1, gt=0, description="what it is multiplied by; of poly, the power")
    smoothing: Number = Field(default=0.0, ge=0, lt=1, description="label smoothing: the share for all classes")
    mixup: Number = Field(default=0.0, ge=0, description="alpha of mixup; 0: none")
    cutmix: Number = Field(default=0.0, ge=0, description="alpha of cutmix; 0: none")
    mixup_prob: Number = Field(default=1.0, gt=0, le=1, description="the share of batches that is mixed")
    mixup_switch_prob: Number = Field(
        default=0.5, ge=0, le=1, description="the share of mixed batches that cutmix takes where both are on"
    )
    mixup_mode: Literal["batch", "pair", "elem"] = Field(default="batch", description="what one mixing ratio is of")
    mixup_off_epoch: Whole = Field(default=0, ge=0, description="the epoch from which nothing is mixed; 0: never")
    model_ema: bool = Field(default=False, description="keep a running average of the weights, and hand it out")
    model_ema_decay: Number = Field(default=0.9998, gt=0, lt=1, description="how slowly the average moves")
    model_ema_warmup: bool = Field(default=False, description="let the average move faster at first")
    clip_grad: Number | None = Field(default=None, gt=0, description="the bound of gradients; by default none")
    clip_mode: Literal["norm", "value", "agc"] = Field(default="norm", description="what is bounded")
    amp_dtype: Literal["bfloat16", "float16"] | None = Field(
        default=None, description="train in mixed precision; float16 needs a GPU"
    )
    channels_last: bool = Field(
        default=False, description="lay out maps with channels last while training, which most processors run faster"
    )
    grad_checkpointing: bool = Field(
        default=False, description="compute activations again in place of keeping them, where the network knows how"
    )
    val_interval: Whole | None = Field(
        default=None,
        ge=1,
        description="epochs between measurements on a validation split, which it asks for; by default 1 where "
        "`keep_best` or `patience` choose by it, and else nothing is measured while training",
    )
    patience: Whole | None = Field(
        default=None, ge=1, description="end after so many epochs without a better one, and keep the best"
    )
    keep_best: bool = Field(
        default=False,
        description="keep the weights that did best on the validation split, without labels those whose outputs are "
        "most like the dense network's; in finetune those that it begins with count",
    )
    methods: tuple[AnyMethodSpec, ...] = Field(default=(), description="what else the training does: names or mappings")

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not _RENAMED.keys() & values.keys():
            return values
        if both := [f"{old} and {new}" for old, new in _RENAMED.items() if {old, new} <= values.keys()]:
            raise ValueError(f"{both[0]} are one key: leave the first out")
        return {_RENAMED.get(key, key): value for key, value in values.items()}

    @field_validator("opt")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if only_read(info):
            return name
        if name not in optimizers():
            raise ValueError(unknown("optimizer", name, optimizers()))
        if reason := unusable(name):
            raise ValueError(f"optimizer {name} can't be used here: {reason}")
        return name

    @field_validator("sched", mode="before")
    @classmethod
    def _resumable(cls, name: Any) -> Any:
        if name == "plateau":
            raise ValueError(
                "sched=plateau can't be resumed to the same weights, as timm, which is to remove it, does not keep its "
                "state: use cosine or wsd, with patience to end early"
            )
        return name

    @field_validator("amp_dtype")
    @classmethod
    def _precise(cls, dtype: str | None, info: ValidationInfo) -> str | None:
        if dtype == "float16" and not only_read(info):
            import torch

            if not torch.cuda.is_available():
                raise ValueError("float16 needs a GPU, and there is none here: use bfloat16, or leave amp_dtype out")
        return dtype

    @model_validator(mode="after")
    def _fits(self) -> TrainSpec:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} leaves nothing of epochs={self.epochs}")
        if self.sched == "multistep" and not self.decay_milestones:
            raise ValueError("sched=multistep needs decay_milestones, such as [30, 60]")
        if self.mixes and self.batch_size % 2:
            raise ValueError(f"mixup and cutmix take samples in pairs, and batch_size={self.batch_size} is odd")
        if self.interval > self.epochs and self.chooses:
            raise ValueError(f"val_interval={self.val_interval} never comes in epochs={self.epochs}")
        exact = [spec.method for spec in self.methods if spec.exact_weights]
        if len(exact) > 1:
            raise ValueError(f"methods {' and '.join(exact)} each set weights that the other would undo: choose one")
        if self.model_ema and exact:
            raise ValueError(f"model_ema averages the weights that method {exact[0]} sets: leave one of them out")
        return self

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def chooses(self) -> bool:
        """Whether something is chosen by quality on the validation split."""
        return self.keep_best or self.patience is not None

    @property
    def validates(self) -> bool:
        """Whether quality is measured while training, for which a validation split is kept."""
        return self.chooses or self.val_interval is not None

    @property
    def interval(self) -> int:
        """Epochs between measurements on the validation split."""
        return self.val_interval or 1

    @property
    def needs_labels(self) -> bool:
        """Whether it can't train on data without labels."""
        return all(spec.needs_labels for spec in self.methods)

    def before_cut(self, prune: PruneSpec) -> TrainSpec:
        """Gives the methods what they take from the cut that follows.

        Args:
            prune: the recipe's.

        Returns:
            The same training, whose methods are complete.

        Raises:
            ValueError: a method needs what `prune` does not have.
        """
        methods = tuple(spec.before_cut(prune) for spec in self.methods)
        return self if methods == self.methods else self.model_copy(update={"methods": methods})

    @property
    def plans(self) -> bool:
        """Whether a method plans the cut that follows."""
        return any(spec.plans for spec in self.methods)


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
