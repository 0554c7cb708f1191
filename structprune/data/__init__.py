"""The images of a run: to train on, to calibrate and gate with, and held out to measure quality on."""

from .sources import Data, load_data

__all__ = ["Data", "load_data"]
