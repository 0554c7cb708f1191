"""What a recipe may say of its task: the keys of each, and the registry of tasks.

Nothing here imports torch, so that a recipe can be read without it. A task that comes later has its spec in its own
file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from ..registry import SpecRegistry
from ..strict_specs import Number, Strict, Whole
from ..user_code_calls import CodeName

if TYPE_CHECKING:
    from .task import TaskKind


class TaskSpec(Strict):
    """A task in a recipe. `name` is registered, or `file.py:Class`."""

    name: str = Field(description="the task's name")


class ClassificationSpec(TaskSpec):
    """One class a sample. The network returns scores of shape (samples, classes), or a dict with them as `logits`."""

    name: Literal["classification"] = Field(default="classification", description="the task's name")


class SegmentationSpec(TaskSpec):
    """One class a pixel. `ignore_index` marks pixels of a mask that do not count."""

    name: Literal["segmentation"] = Field(default="segmentation", description="the task's name")
    num_classes: Whole = Field(ge=2, description="how many classes a pixel may have")
    ignore_index: Whole = Field(default=255, description="the number that marks pixels that do not count")


class RegressionSpec(TaskSpec):
    """Dense regression. `data_range` is the span of the targets' values, of which PSNR takes the peak. `peaks` also
    measures heat maps: the share of maps (samples, maps, h, w) whose peak is within `peaks` pixels of the target's."""

    name: Literal["regression"] = Field(default="regression", description="the task's name")
    data_range: Number = Field(default=1.0, gt=0, description="the span of the targets' values")
    peaks: Number | None = Field(default=None, ge=0, description="pixels that the peak of a heat map may be off by")


class EmbeddingSpec(TaskSpec):
    """A vector a sample, compared by its direction."""

    name: Literal["embedding"] = Field(default="embedding", description="the task's name")


class DetectionSpec(TaskSpec):
    """Boxes with classes and scores. Boxes of the dense network from `score` on are what a slim one should find."""

    name: Literal["detection"] = Field(default="detection", description="the task's name")
    score: Number = Field(
        default=0.5, ge=0, le=1, description="boxes of the dense network from this score on should be found"
    )


class TextDetectionSpec(TaskSpec):
    """Boxes of words, out of a text detector's maps. A box is the same as another if they overlap by `overlap`."""

    name: Literal["text_detection"] = Field(default="text_detection", description="the task's name")
    overlap: Number = Field(
        default=0.5, gt=0, le=1, description="intersection over union from which on two boxes are the same"
    )


class TextRecognitionSpec(TaskSpec):
    """Lines of text, out of a recogniser's scores along them, read by CTC."""

    name: Literal["text_recognition"] = Field(default="text_recognition", description="the task's name")


class OwnTaskSpec(TaskSpec):
    """A task of the user's own: `name` is `file.py:Class`, made with `kwargs`."""

    name: CodeName = Field(description="`file.py:Class`")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="arguments of the class")


TASKS: SpecRegistry[TaskKind] = SpecRegistry(
    "task",
    "structprune.tasks",
    "TASKS",
    {
        "classification": ClassificationSpec,
        "detection": DetectionSpec,
        "embedding": EmbeddingSpec,
        "regression": RegressionSpec,
        "segmentation": SegmentationSpec,
        "text_detection": TextDetectionSpec,
        "text_recognition": TextRecognitionSpec,
    },
)
AnyTaskSpec = Annotated[SerializeAsAny[TaskSpec], BeforeValidator(TASKS.parser("name", OwnTaskSpec))]
