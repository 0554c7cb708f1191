"""Runs a model on calibration images and looks at what goes into its layers.

Enters: a module and images without labels. Leaves: tensors seen at calls, for criteria and recovery. `observer` shows
the arguments of calls, `sweep` goes from one to the next while weights change, `windows` takes input windows and output
values, `writable_network` holds the weights that change. Nothing here knows of groups or plans, nor looks into a
recording: `graph.layers` and `graph.recorded_calls` say what is in it.
"""

from .batches import Batch, batches_for, batches_of
from .observer import Observer
from .spread import Spread
from .sweep import Sweep
from .windows import Sample, choose, sample, take
from .writable_network import WritableNetwork

__all__ = [
    "Batch",
    "Observer",
    "Sample",
    "Spread",
    "Sweep",
    "WritableNetwork",
    "batches_for",
    "batches_of",
    "choose",
    "sample",
    "take",
]
