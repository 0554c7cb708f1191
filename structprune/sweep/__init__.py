"""A recipe in many variants, over seeds: `structprune sweep`.

Enters: a file that names a recipe, and what is tried with it. Leaves: a folder with a run for each variant and seed,
and a table of means over seeds. `specs` says what such a file holds, `arms` what its grids come to, `reading` checks
all recipes before any runs, `processes` and `ray_cluster` run each as `structprune run`, `summary` sums up. It knows no
stage of a run.
"""

from .processes import Ending, Executor, Job, on_this_machine
from .ray_cluster import on_ray
from .reading import read_sweep
from .records import SCHEMA, SweepReport
from .running import sweep
from .table import sweep_table

__all__ = [
    "SCHEMA",
    "Ending",
    "Executor",
    "Job",
    "SweepReport",
    "on_ray",
    "on_this_machine",
    "read_sweep",
    "sweep",
    "sweep_table",
]
