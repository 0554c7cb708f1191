"""The training loop, and the measures of quality: accuracy with labels, agreement with the dense network without."""

from ..tasks.at_once import accuracy, agreement, predict, predict_onnx
from .loop import fit
from .stage import train_stage

__all__ = ["accuracy", "agreement", "fit", "predict", "predict_onnx", "train_stage"]
