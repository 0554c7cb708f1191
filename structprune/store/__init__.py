"""Saving a slim model and reading it back, without pickle and without tracing.

`save` writes `slim.safetensors` (weights) and `plan.json` (the plan, and under `architecture` a description of
the module tree); `load` rebuilds the module from these two files. `architecture` knows how modules are
described, `atomic_files` how files appear whole or not at all.
"""

from .store import load, save

__all__ = ["load", "save"]
