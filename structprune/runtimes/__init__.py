"""Runtimes, and latency measured on them: networks on a runtime of this machine, interleaved, with an interval.

Enters: ONNX files, or modules for engines that take them. Leaves: a `Benchmark`. `engine` says what an engine is, and
`engines` has them, one a file; `runtime` says which engine on what, `latency` times in turns, `layer_times` kernels one
by one.
"""

from ..lazy_imports import names_of
from .engine import ENGINES, Engine
from .latency import Benchmark, benchmark, pace
from .layer_times import time_layers
from .machine import environment
from .other_runtimes import time_also
from .runtime import Runtime

__all__ = ["ENGINES", "Benchmark", "Engine", "Runtime", "benchmark", "environment", "pace", "time_also", "time_layers"]

__getattr__ = names_of(__name__, {})  # modules inside
