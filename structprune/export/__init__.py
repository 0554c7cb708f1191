"""Exports a model to a checked ONNX file with a dynamic batch, quantises that to int8, and writes other formats.

Each format is one file in `formats/`, beside its record (`format.Format`).
"""

from .format import FORMATS, Finished, Format, write_format
from .int8 import quantize
from .metadata import metadata_of
from .onnx import OPSET, export_onnx, opset_of

__all__ = [
    "FORMATS",
    "OPSET",
    "Finished",
    "Format",
    "export_onnx",
    "metadata_of",
    "opset_of",
    "quantize",
    "write_format",
]
