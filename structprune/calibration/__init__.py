"""Runs a model on calibration images and looks at what goes into its layers.

Enters: a module and images without labels. Leaves: tensors seen at calls, for criteria and recovery. `layers` names the
convolutions, linear layers and BatchNorms of a forward pass, `observe` shows their arguments, `sweep` goes from one to
the next while weights change, `windows` takes input windows and output values. Nothing here knows of groups or plans.
"""

from .batches import Batch, batches_for, batches_of
from .layers import Layer, Norm, find_layers
from .observer import Observer
from .spread import Spread
from .sweep import Sweep
from .windows import Sample, choose, sample, take
from .writable_network import WritableNetwork

__all__ = [
    "Batch",
    "Layer",
    "Norm",
    "Observer",
    "Sample",
    "Spread",
    "Sweep",
    "WritableNetwork",
    "batches_for",
    "batches_of",
    "choose",
    "find_layers",
    "sample",
    "take",
]
