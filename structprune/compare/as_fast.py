"""structprune at the speed that torch-pruning's network was measured to have."""

from __future__ import annotations

from pathlib import Path

from ..errors import StructPruneError
from ..graph import DependencyGraph
from ..json_records import read_record
from ..plan import allocation_of
from ..progress import Reporter
from ..recipe import Recipe, check_recipe
from ..records import Scores
from ..run import rehearse
from .our_run import run_ours, write_record
from .records import Asked, CutRow, FailedRow
from .rows import OURS, our_row
from .timing import time_networks

AS_FAST = f"{OURS}-as-fast"
# The allocation of a speed where the recipe's own does not weigh what a width loses against what it costs.
FOR_SPEED = "knapsack"


def row_as_fast(
    recipe: Recipe, peer: CutRow | FailedRow, graph: DependencyGraph, scores: Scores, folder: Path, reporter: Reporter
) -> tuple[CutRow | FailedRow | None, str]:
    """structprune's row at the speed that torch-pruning's network `peer` is measured to have, and a note on it.

    No row where there is no such speed to ask for.
    """
    name, place = peer.network, folder / AS_FAST
    if isinstance(peer, FailedRow):
        return None, f"no {AS_FAST}: {name} failed"
    stored = place / "asked.json"
    if not stored.is_file():
        timed = time_networks([name], recipe, folder, reporter)
        write_record(stored, Asked(speedup=round(timed.speedup[name], 3), ci95=timed.ci95[name], of=name))
    goal = read_record(stored, Asked)
    speedup, (low, high) = goal.speedup, goal.ci95
    measured = f"{name} was measured to be {speedup:.2f}× as fast as dense (95 %: {low:.2f}-{high:.2f})"
    if speedup <= 1:
        return None, f"no {AS_FAST}: {measured}: a speed that a budget can't ask for"
    faster = with_speedup(recipe, speedup)
    note = (
        f"{AS_FAST}: the recipe with budget speedup={speedup:g} alone and allocation {faster.prune.allocation}, as "
        f"{measured}; its seconds are with timing what it planned, without learning what widths cost"
    )
    try:
        rehearse(faster, reporter)
        return our_row(place, *run_ours(faster, place, reporter), graph, scores, goal), note
    except StructPruneError as error:  # beside what the others did it is a result, as theirs are
        return FailedRow(network=AS_FAST, tool=OURS, error=str(error), asked=goal), note


def with_speedup(recipe: Recipe, speedup: float) -> Recipe:
    """The recipe with this budget alone, shared by what widths cost. Raises RecipeError where that can't be."""
    allocation = recipe.prune.allocation if allocation_of(recipe.prune.allocation).for_speed else FOR_SPEED
    prune = {**recipe.prune.model_dump(mode="json"), "budget": {"speedup": speedup}, "allocation": allocation}
    return check_recipe({**recipe.model_dump(mode="json"), "prune": prune}, "as_fast", tell=lambda line: None)
