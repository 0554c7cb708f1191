"""Measured latency: ONNX files in onnxruntime on this CPU, interleaved, with an interval."""

from .latency import Benchmark, benchmark
from .machine import environment

__all__ = ["Benchmark", "benchmark", "environment"]
