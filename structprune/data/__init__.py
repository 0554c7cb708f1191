"""The data of a run: to train on, to calibrate and gate with, to choose by, and held out to measure quality on.

Enters a spec of a recipe and the model, leaves a `Data` record of datasets and batches. One file adds a source. It
knows nothing of plans, training or reports.
"""

from .record import SOURCES, Data, Source
from .sources import AnyDataSpec, load_data
from .spec import CalibrationSpec, DataSpec

__all__ = ["SOURCES", "AnyDataSpec", "CalibrationSpec", "Data", "DataSpec", "Source", "load_data"]
