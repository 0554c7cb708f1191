"""Measured latency: ONNX files in onnxruntime on this CPU, interleaved, with an interval."""

from .latency import Benchmark, benchmark
from .layers import time_layers
from .machine import environment
from .runtime import Runtime

__all__ = ["Benchmark", "Runtime", "benchmark", "environment", "time_layers"]
