"""Distillation (Hinton et al. 2015): the slim network learns from the dense one, with labels or without."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ...errors import RecipeError
from ...strict_specs import Number
from ..method import TRAINING_METHODS, MethodKind, MethodSpec, Step, Training, TrainingMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...recover.comparison_points import ComparisonPoint


class DistillSpec(MethodSpec):
    """What the dense network says is added to the loss; with `feature_loss_weight` also where it looks, and with
    `block_loss_weight` what its blocks make of each channel."""

    needs_labels: ClassVar[bool] = False
    needs_dense: ClassVar[bool] = True

    method: Literal["distill"] = Field(default="distill", description="the method's name")
    distill_loss_weight: Number = Field(default=1.0, ge=0, description="how much the outputs count")
    task_loss_weight: Number = Field(default=1.0, ge=0, description="how much the labels count, where there are some")
    temperature: Number = Field(default=1.0, gt=0, description="what class scores are divided by")
    feature_loss_weight: Number = Field(default=0.0, ge=0, description="how much inner maps and tokens count")
    block_loss_weight: Number = Field(
        default=0.0, ge=0, description="how much the channels count that blocks hand on and that the plan keeps"
    )
    modules: tuple[str, ...] = Field(
        default=(), description="modules whose outputs are compared, with `*` and `?`; by default timm's stages"
    )

    @model_validator(mode="after")
    def _learns(self) -> DistillSpec:
        if not self.distill_loss_weight + self.feature_loss_weight + self.block_loss_weight:
            raise ValueError(
                "distill_loss_weight, feature_loss_weight and block_loss_weight are all 0: leave distill out, or "
                "raise one"
            )
        return self


class Distill(TrainingMethod):
    """α·task + β·T²·KL(dense/T ‖ slim/T), γ times the distance of inner features, and δ times that of blocks' channels.

    What stands for the KL where outputs are no class scores is the task's word (`Task.imitation_loss`): maps by squared
    error, embeddings by their direction. Inner features of other widths can't be compared channel by channel: maps
    (samples, channels, height, width) are compared by where they are strong (attention transfer, Zagoruyko &
    Komodakis, ICLR 2017, equation 2 with p = 2), tokens (samples, tokens, channels) by how alike they are to each other
    (Park et al., Relational Knowledge Distillation, CVPR 2019, as cosines). Where the plan says which of the dense
    network's channels a block still hands on, they can be compared one by one, without the regressor of Romero et al.
    (FitNets, ICLR 2015, equation 3): the mean square of the difference as a share of the dense channels' variance.

    Usual errors: the factor T² left out, so that a higher temperature is a weaker loss; a teacher in training mode; a
    teacher that sees other crops than the student.
    """

    gives_loss = True

    def __init__(self, spec: DistillSpec) -> None:
        self.spec = spec
        self.features: list[dict[str, Any]] = [{}, {}]  # of the dense network and of the slim one
        self.names: list[str] = []  # of the modules whose maps and tokens are compared
        self.points: list[ComparisonPoint] = []

    def start(self, training: Training) -> None:
        self.task = training.task
        self.dense, self.autocast = training.taught_by("distill"), training.autocast
        self.hooks = []
        if self.spec.feature_loss_weight:
            self.names = self._names(training.model)
        if self.spec.block_loss_weight:
            self.points = _points(self.dense, training)
        watched = dict.fromkeys([*self.names, *(point.module for point in self.points)])
        for model, features in zip((self.dense, training.model), self.features, strict=True):
            modules = dict(model.named_modules())
            if missing := [name for name in watched if name not in modules]:
                raise RecipeError(f"method distill: the dense network has no module {missing[0]}")
            self.hooks += [modules[name].register_forward_hook(_keeper(features, name)) for name in watched]

    def _names(self, model: nn.Module) -> list[str]:
        names = [name for name, _ in model.named_modules() if name]
        if self.spec.modules:
            chosen = [name for name in names if any(fnmatch.fnmatchcase(name, each) for each in self.spec.modules)]
            if not chosen:
                raise RecipeError(f"method distill: no module's name fits {', '.join(self.spec.modules)}")
            return chosen
        info = getattr(model, "feature_info", None)
        stages = [entry["module"] for entry in (getattr(info, "info", info) or []) if isinstance(entry, dict)]
        if not stages or any(name not in names for name in stages):
            raise RecipeError(
                "method distill: the network does not say what its stages are (feature_info): give modules, such as "
                "[layer*]"
            )
        return list(dict.fromkeys(stages))

    def loss(self, step: Step) -> Tensor:
        import torch
        from accelerate.utils import convert_to_fp32

        with torch.no_grad(), self.autocast():
            targets = convert_to_fp32(step.batch.inputs.call(self.dense))
        total = self.spec.task_loss_weight * step.loss
        if self.spec.distill_loss_weight:
            imitation = self.task.imitation_loss(step.outputs, targets, self.spec.temperature)
            total = total + self.spec.distill_loss_weight * imitation
        if self.spec.feature_loss_weight:
            total = total + self.spec.feature_loss_weight * self._feature_loss()
        if self.spec.block_loss_weight:
            total = total + self.spec.block_loss_weight * self._block_loss()
        for features in self.features:
            features.clear()
        return total

    def _feature_loss(self) -> Tensor:
        import torch

        dense, slim = self.features
        return torch.stack([_unlike(slim[name], dense[name], name) for name in self.names if name in dense]).mean()

    def _block_loss(self) -> Tensor:
        import torch

        from ...tasks.distance import relative_square

        dense, slim = self.features
        pairs = [(slim[point.module], point.as_slim(dense[point.module])) for point in self.points]
        return torch.stack([relative_square(ours, theirs) for ours, theirs in pairs]).mean()

    def finish(self, model: nn.Module) -> None:
        for hook in self.hooks:
            hook.remove()


def _points(dense: nn.Module, training: Training) -> list[ComparisonPoint]:
    """Where the dense network's channels have counterparts, by the modules that hand them on."""
    from ...calibration import WritableNetwork
    from ...modules import evaluating
    from ...recover.comparison_points import find_points

    if training.plan is None:
        raise RecipeError(
            "method distill: block_loss_weight compares channels that a plan keeps, and there is none: leave it out"
        )
    slim, example = training.model, training.example.beside(training.model)
    with evaluating(dense), evaluating(slim):
        there, here = (WritableNetwork.of(model, example) for model in (dense, slim))
    points = find_points(there, here, training.plan, example)
    names = {name for name, _ in slim.named_modules()}
    named = [point for point in points if point.module in names]
    if not named:
        raise RecipeError(
            "method distill: no module hands on a tensor of which the plan says what stays, for block_loss_weight: "
            "leave it out, or where prune.form is graph, set it to module"
        )
    return named


def _keeper(features: dict[str, Any], name: str) -> Callable[..., Any]:
    import torch

    def keep(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        features[name] = outputs
        return outputs.clone() if isinstance(outputs, torch.Tensor) else None  # what comes after may write into it

    return keep


def _unlike(slim: Any, dense: Any, name: str) -> Tensor:
    """The distance of two features that may differ in channels. Raises RecipeError for neither maps nor tokens."""
    from torch import Tensor
    from torch.nn import functional as F

    shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in (slim, dense)]
    if isinstance(slim, Tensor) and isinstance(dense, Tensor) and slim.dim() == dense.dim():
        if slim.dim() == 4 and slim.shape[2:] == dense.shape[2:]:
            maps = [F.normalize(x.float().square().mean(1).flatten(1), dim=1) for x in (slim, dense)]
            return (maps[0] - maps[1]).square().sum(1).mean()
        if slim.dim() == 3 and slim.shape[1] == dense.shape[1]:
            tokens = [F.normalize(x.float(), dim=2) for x in (slim, dense)]
            return (tokens[0] @ tokens[0].mT - tokens[1] @ tokens[1].mT).square().mean()
    raise RecipeError(
        f"method distill: module {name} gives {shapes[0]}, and the dense one {shapes[1]}: features are maps (samples, "
        "channels, height, width) or tokens (samples, tokens, channels): choose other modules"
    )


TRAINING_METHODS.add(
    MethodKind(
        "distill", "learning from the dense network (Hinton et al. 2015)", DistillSpec, lambda spec: Distill(spec)
    )
)
