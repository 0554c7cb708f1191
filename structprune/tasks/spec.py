"""What a recipe may say of its task: the keys of each, and the registry of tasks.

Nothing here imports torch, so that a recipe can be read without it. A task that comes later has its spec in its own
file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from ..own_code import CodeName
from ..registry import Registry
from ..specs import Number, Strict, Whole

if TYPE_CHECKING:
    from .task import TaskKind


class TaskSpec(Strict):
    """A task in a recipe. `name` is registered, or `file.py:Class`."""

    name: str


class ClassificationSpec(TaskSpec):
    """One class a sample. The network returns scores of shape (samples, classes), or a dict with them as `logits`."""

    name: Literal["classification"] = "classification"


class SegmentationSpec(TaskSpec):
    """One class a pixel. `ignore_index` marks pixels of a mask that do not count."""

    name: Literal["segmentation"] = "segmentation"
    num_classes: Whole = Field(ge=2)
    ignore_index: Whole = 255


class RegressionSpec(TaskSpec):
    """Dense regression. `data_range` is the span of the targets' values, of which PSNR takes the peak. `peaks` also
    measures heat maps: the share of maps (samples, maps, h, w) whose peak is within `peaks` pixels of the target's."""

    name: Literal["regression"] = "regression"
    data_range: Number = Field(default=1.0, gt=0)
    peaks: Number | None = Field(default=None, ge=0)


class EmbeddingSpec(TaskSpec):
    """A vector a sample, compared by its direction."""

    name: Literal["embedding"] = "embedding"


class DetectionSpec(TaskSpec):
    """Boxes with classes and scores. Boxes of the dense network from `score` on are what a slim one should find."""

    name: Literal["detection"] = "detection"
    score: Number = Field(default=0.5, ge=0, le=1)


class OwnTaskSpec(TaskSpec):
    """A task of the user's own: `name` is `file.py:Class`, made with `kwargs`."""

    name: CodeName
    kwargs: dict[str, Any] = Field(default_factory=dict)


TASKS: Registry[TaskKind] = Registry(
    "task",
    "structprune.tasks",
    "TASKS",
    {
        "classification": ClassificationSpec,
        "detection": DetectionSpec,
        "embedding": EmbeddingSpec,
        "regression": RegressionSpec,
        "segmentation": SegmentationSpec,
    },
)
AnyTaskSpec = Annotated[SerializeAsAny[TaskSpec], BeforeValidator(TASKS.parser("name", OwnTaskSpec))]
