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


class DistillSpec(MethodSpec):
    """What the dense network says is added to the loss, and with `feature_loss_weight` where it looks, as well."""

    needs_labels: ClassVar[bool] = False
    needs_dense: ClassVar[bool] = True

    method: Literal["distill"] = Field(default="distill", description="the method's name")
    distill_loss_weight: Number = Field(default=1.0, ge=0, description="how much the outputs count")
    task_loss_weight: Number = Field(default=1.0, ge=0, description="how much the labels count, where there are some")
    temperature: Number = Field(default=1.0, gt=0, description="what class scores are divided by")
    feature_loss_weight: Number = Field(default=0.0, ge=0, description="how much inner maps and tokens count")
    modules: tuple[str, ...] = Field(
        default=(), description="modules whose outputs are compared, with `*` and `?`; by default timm's stages"
    )

    @model_validator(mode="after")
    def _learns(self) -> DistillSpec:
        if not self.distill_loss_weight and not self.feature_loss_weight:
            raise ValueError("distill_loss_weight and feature_loss_weight are both 0: leave distill out, or raise one")
        return self


class Distill(TrainingMethod):
    """α·task + β·T²·KL(dense/T ‖ slim/T), and γ times the distance of inner features.

    What stands for the KL where outputs are no class scores is the task's word (`Task.imitation_loss`): maps by squared
    error, embeddings by their direction. Inner features of other widths can't be compared channel by channel: maps
    (samples, channels, height, width) are compared by where they are strong (attention transfer, Zagoruyko &
    Komodakis, ICLR 2017, equation 2 with p = 2), tokens (samples, tokens, channels) by how alike they are to each other
    (Park et al., Relational Knowledge Distillation, CVPR 2019, as cosines).

    Usual errors: the factor T² left out, so that a higher temperature is a weaker loss; a teacher in training mode; a
    teacher that sees other crops than the student.
    """

    gives_loss = True

    def __init__(self, spec: DistillSpec) -> None:
        self.spec = spec
        self.features: list[dict[str, Any]] = [{}, {}]  # of the dense network and of the slim one

    def start(self, training: Training) -> None:
        self.task = training.task
        self.dense, self.autocast = training.taught_by("distill"), training.autocast
        self.hooks = []
        if self.spec.feature_loss_weight:
            names = self._names(training.model)
            for model, features in zip((self.dense, training.model), self.features, strict=True):
                modules = dict(model.named_modules())
                if missing := [name for name in names if name not in modules]:
                    raise RecipeError(f"method distill: the dense network has no module {missing[0]}")
                self.hooks += [modules[name].register_forward_hook(_keeper(features, name)) for name in names]

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
        return total

    def _feature_loss(self) -> Tensor:
        import torch

        dense, slim = self.features
        return torch.stack([_unlike(slim.pop(name), dense.pop(name), name) for name in list(dense)]).mean()

    def finish(self, model: nn.Module) -> None:
        for hook in self.hooks:
            hook.remove()


def _keeper(features: dict[str, Any], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: Any, outputs: Any) -> None:
        features[name] = outputs

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
