"""The data of a run: to train on, to calibrate and gate with, to choose by, and held out to measure quality on.

Enters a spec of a recipe and the model, leaves a `Data` record of datasets and batches. One file adds a source. It
knows nothing of plans, training or reports.
"""

from typing import TYPE_CHECKING

from .. import lazy_imports
from .spec import SOURCES, AnyDataSpec, CalibrationSpec, DataSpec

if TYPE_CHECKING:
    from .record import Data, Source
    from .sources import load_data

__all__ = ["SOURCES", "AnyDataSpec", "CalibrationSpec", "Data", "DataSpec", "Source", "load_data"]

__getattr__ = lazy_imports.names_of(__name__, {"Data": "record", "Source": "record", "load_data": "sources"})
