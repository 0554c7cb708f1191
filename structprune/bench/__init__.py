"""Measured latency: ONNX files in onnxruntime on this CPU, interleaved, with an interval."""

from .engines import ENGINES, OF_FILES, Module, check_engine, engine_name
from .latency import Benchmark, benchmark
from .layers import time_layers
from .machine import environment
from .runtime import Runtime

__all__ = [
    "ENGINES",
    "OF_FILES",
    "Benchmark",
    "Module",
    "Runtime",
    "benchmark",
    "check_engine",
    "engine_name",
    "environment",
    "time_layers",
]
