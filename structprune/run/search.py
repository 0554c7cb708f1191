"""The smallest or the fastest network within a bound of quality: bisection over budgets of cost.

Each network that is tried goes through the recipe's own stages, planned to its budget, cut and recovered, and is judged
on the validation split; what its stages make is kept in the store like a run's. Quality need not fall evenly with cost:
the best network found is one within the bound beside which a smaller one that was tried is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import BudgetError, TrainingError
from ..judge import Quality
from ..progress import Reporter
from ..recipe import BudgetSpec, Recipe, SearchSpec
from .bounds import found_beside, is_met
from .runner import Runner

FINE = 1 / 128  # of the way from no cut to the least that was asked for: nearer, nothing more is tried
START = 0.5  # of the way, for the first network where no cost is asked for
Budget = Callable[[float], BudgetSpec]


@dataclass(frozen=True)
class Trial:
    """One network: its budget of cost, the share of MACs that stays, and by how much each bound was met.

    `found` has the drop or the agreement, by the bound's name, and `error` why there is no network to this budget.
    """

    budget: dict[str, float]
    within: bool
    macs: float | None = None
    found: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Search:
    """What came of it: what was asked, the networks tried, in turn, and which bound held.

    `held` is "cost" where the network asked for is within the bounds of quality, so that no smaller one was tried, and
    "quality" where they stopped the cut. `images` is the number of samples that it was chosen by.
    """

    asked: dict[str, float]
    trials: list[Trial]
    held: str
    images: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def search(runner: Runner, recipe: Recipe, reporter: Reporter) -> Runner:
    """The runner of the best budget within the recipe's bounds of quality, with what was tried given as `search`.

    Raises:
        BudgetError: no network that was tried is within the bounds.
    """
    spec, wanted = recipe.prune.search or SearchSpec(), recipe.prune.budget
    dense = runner.value("chooser").dense  # what all trials share is made before them
    runner.settle("judge", "scores")
    budget_at = _budgets(runner, wanted)
    least, most, turn = 0.0, 1.0, 1.0 if wanted.costs else START
    trials: list[Trial] = []
    best: Trial | None = None
    while len(trials) < spec.trials and most - least > FINE:
        budget = budget_at(turn)
        reporter.stage(f"trial {len(trials) + 1} of {spec.trials} at most: {_shown(budget.costs)}")
        trial = _try(runner, recipe, budget, dense, spec.epochs)
        trials.append(trial)
        reporter.stage(f"trial {len(trials)}: {_outcome(trial, wanted)}", **asdict(trial))
        if trial.within:
            best, least = trial, turn
        else:
            most = turn
        turn = (least + most) / 2
    if best is None:
        raise BudgetError(
            f"no network was found within {_shown(wanted.bounds)} of quality: the nearest tried, "
            f"{_shown(trials[-1].budget)}, {_outcome(trials[-1], wanted)}: allow more, or recover and fine-tune more"
        )
    held = "cost" if least == 1.0 else "quality"
    found = Search(wanted.model_dump(exclude_none=True), trials, held, dense.n)
    chosen = _with_budget(recipe, BudgetSpec(**best.budget, **wanted.bounds))
    return runner.beside(chosen, {"search": found})


def _try(runner: Runner, recipe: Recipe, budget: BudgetSpec, dense: Quality, epochs: int) -> Trial:
    short = recipe.finetune.model_copy(update={"epochs": epochs}) if recipe.finetune and epochs else None
    candidate = runner.beside(_with_budget(recipe, budget).model_copy(update={"finetune": short}))
    try:
        plan, quality = candidate.value("plan"), candidate.value("validation")
    except (BudgetError, TrainingError) as error:  # too small to be planned, or to be fine-tuned
        return Trial(budget.costs, False, error=str(error))
    found = found_beside(dense, quality, budget.bounds)
    within = all(is_met(name, found[name], asked) for name, asked in budget.bounds.items())
    return Trial(budget.costs, within, plan.macs["slim"] / plan.macs["dense"], found)


def _with_budget(recipe: Recipe, budget: BudgetSpec) -> Recipe:
    return recipe.model_copy(update={"prune": recipe.prune.model_copy(update={"budget": budget})})


def _budgets(runner: Runner, wanted: BudgetSpec) -> Budget:
    """The budget at each part of the way from no cut (0) to the least that is asked for (1)."""
    if not wanted.costs:
        return lambda part: BudgetSpec(macs=max(1 - part, FINE), **wanted.bounds)
    graph = runner.value("graph")
    whole = {"macs": graph.macs(), "params": graph.params(), "channels": sum(g.units for g in graph.groups)}
    if "latency_ms" in wanted.costs:
        whole["latency_ms"] = runner.value("costs").cost.dense_ms

    def at(part: float) -> BudgetSpec:
        costs = {}
        for name, asked in wanted.costs.items():
            if name == "speedup":
                costs[name] = 1 / (1 - part * (1 - 1 / asked))  # evenly in time
            else:
                dense = 1.0 if name != "latency_ms" and asked <= 1 else whole[name]
                costs[name] = dense - part * (dense - asked)
        return BudgetSpec(**(wanted.costs if part == 1 else costs), **wanted.bounds)

    return at


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _outcome(trial: Trial, wanted: BudgetSpec) -> str:
    if trial.error:
        return trial.error
    told = ", ".join(f"{name} {value:.4f} of {wanted.bounds[name]:.4g}" for name, value in trial.found.items())
    return f"{'within' if trial.within else 'outside'} the bound ({told}), with {trial.macs:.1%} of the MACs"
