"""Measured latency: ONNX files in onnxruntime on this CPU, interleaved, with an interval."""

from .engines import ENGINES, Module, check_engine
from .latency import Benchmark, benchmark
from .layers import time_layers
from .machine import environment
from .runtime import Runtime
from .several import time_engines

__all__ = [
    "ENGINES",
    "Benchmark",
    "Module",
    "Runtime",
    "benchmark",
    "check_engine",
    "environment",
    "time_engines",
    "time_layers",
]
