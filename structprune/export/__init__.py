"""Exports a model to a checked ONNX file with a dynamic batch, and quantises that to int8."""

from .int8 import quantize
from .onnx import OPSET, export_onnx, opset_of

__all__ = ["OPSET", "export_onnx", "opset_of", "quantize"]
