"""BatchNorms that normalise by the statistics that they came with, while their network is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...errors import RecipeError
from ..method import TRAINING_METHODS, MethodKind, MethodSpec, Training, TrainingMethod

if TYPE_CHECKING:
    from torch import nn

    from ...calibration import Batch


class FrozenStatisticsSpec(MethodSpec):
    """Running means and variances stay: for training on few images, whose statistics are not those of the task."""

    method: Literal["frozen_statistics"] = Field(default="frozen_statistics", description="the method's name")


class FrozenStatistics(TrainingMethod):
    """BatchNorms in evaluation mode while all else trains; their scales and shifts are trained, as other weights.

    It is how detectors are trained on small batches (timm's `freeze_batch_norm_2d` replaces the modules, with the same
    outputs). A training method that sets weights and takes statistics anew leaves frozen ones alone.

    Usual errors: setting the mode once, before the next epoch's `train()` undoes it; freezing a network whose
    statistics are those of before a cut (re-estimate them first: `recover: [batchnorm]`).
    """

    def start(self, training: Training) -> None:
        from torch.nn.modules.batchnorm import _BatchNorm

        from ...modules import walk

        self.norms: list[nn.Module] = [
            module
            for _, module in walk(training.model)
            if isinstance(module, _BatchNorm) and module.track_running_stats
        ]
        if not self.norms:
            raise RecipeError(
                "method frozen_statistics needs BatchNorms that keep statistics, and the network has none as modules: "
                "leave it out, or set prune.form to module"
            )

    def mix(self, batch: Batch) -> Batch:
        for norm in self.norms:
            norm.eval()
        return batch


TRAINING_METHODS.add(
    MethodKind(
        "frozen_statistics",
        "BatchNorms keep the statistics that they came with",
        FrozenStatisticsSpec,
        lambda spec: FrozenStatistics(),
    )
)
