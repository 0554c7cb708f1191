"""A recipe from start to end: named stages over a store of what they made.

Enters: a `Recipe` and a folder. Leaves: the folder with the networks, the plan and the report. `stage` says what a
stage is, `stages` has them, `runner` runs them and finds in the store (`store.artefacts`) what was made before;
`folder` looks after a run's folder.
"""

from ..lazy_imports import call_like
from .api import plan_recipe, rehearse, run, run_recipe, runner_of
from .folder import RunFolder, held, store_of

__all__ = ["RunFolder", "held", "plan_recipe", "rehearse", "run", "run_recipe", "runner_of", "store_of"]

call_like(__name__, run)
