"""The trainer, and the measures of quality: accuracy with labels, agreement with the dense network without."""

from typing import TYPE_CHECKING

from .. import lazy_imports

if TYPE_CHECKING:
    from ..tasks.whole_outputs import accuracy, agreement, predict, predict_onnx
    from .stage import train_stage
    from .trainer import fit

__all__ = ["accuracy", "agreement", "fit", "predict", "predict_onnx", "train_stage"]

_AT_ONCE = dict.fromkeys(("accuracy", "agreement", "predict", "predict_onnx"), ".tasks.whole_outputs")
__getattr__ = lazy_imports.names_of(__name__, {**_AT_ONCE, "fit": "trainer", "train_stage": "stage"})
