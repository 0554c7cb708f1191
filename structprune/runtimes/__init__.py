"""Measured latency: networks on a runtime of this machine, interleaved, with an interval.

Enters: ONNX files, or modules for the torch engines. Leaves: a `Benchmark`. `engines` run networks, `runtime` says
which engine on what, `latency` times in turns, `layers` times onnxruntime's kernels.
"""

from .latency import Benchmark, benchmark, pace
from .layers import time_layers
from .machine import environment
from .other_runtimes import time_also
from .runtime import Runtime

__all__ = ["Benchmark", "Runtime", "benchmark", "environment", "pace", "time_also", "time_layers"]
