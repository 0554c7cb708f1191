"""The smallest or the fastest network within a bound of quality: bisection over budgets of cost.

Each network that is tried goes through the recipe's own stages, planned to its budget, cut and recovered, and is judged
on the validation split; what its stages make is kept in the store like a run's. Quality need not fall evenly with cost:
the best network found is one within the bound beside which a smaller one that was tried is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import BudgetError, TrainingError
from ..progress import Reporter
from ..quality_judge import Quality
from ..recipe import BudgetSpec, Recipe, SearchSpec
from ..report.records import Budget, Trial
from .quality_bounds import found_beside, is_met
from .runner import Runner

FINE = 1 / 128  # of the way from no cut to the least that was asked for: nearer, nothing more is tried
START = 0.5  # of the way, for the first network where no cost is asked for
BudgetAt = Callable[[float], BudgetSpec]


@dataclass(frozen=True)
class Search:
    """What came of it: what was asked, the networks tried, in turn, and which bound held.

    `held` is "cost" where the network asked for is within the bounds of quality, so that no smaller one was tried, and
    "quality" where they stopped the cut. `images` is the number of samples that it was chosen by.
    """

    asked: Budget
    trials: list[Trial]
    held: Literal["cost", "quality"]
    images: int


def search(runner: Runner, recipe: Recipe, reporter: Reporter) -> Runner:
    """The runner of the best budget within the recipe's bounds of quality, with what was tried given as `search`.

    Raises:
        BudgetError: no network that was tried is within the bounds.
    """
    budget = recipe.prune.budget
    trials = _Trials(runner, recipe, reporter)
    budget_at = budgets_towards(runner, budget)
    least, most, turn = 0.0, 1.0, 1.0 if budget.costs else START
    best = trial = None
    while trials.left and most - least > FINE:
        trial = trials.judge(budget_at(turn))
        if trial.within:
            best, least = trial, turn
        else:
            most = turn
        turn = (least + most) / 2
    if best is None:
        assert trial is not None
        last = trials.done[-1] if trials.done else trial
        raise BudgetError(
            f"no network that was tried is within the bound ({_shown(budget.bounds)}): the nearest, to "
            f"{_shown(last.budget.asked())}, is {_outcome(last, budget)}: allow more, or recover and fine-tune more "
            "(prune.search.epochs)"
        )
    whole_budget = Budget.model_validate(budget.model_dump(exclude_none=True))
    result = Search(whole_budget, trials.done, "cost" if least == 1.0 else "quality", trials.dense.n)
    chosen = _with_budget(recipe, BudgetSpec(**best.budget.asked(), **budget.bounds))
    return runner.beside(chosen, {"search": result})


class _Trials:
    """The networks tried, each planned, made and judged by the recipe's own stages.

    Two budgets may have one plan, as widths move in steps: it is judged once, and counts once.
    """

    def __init__(self, runner: Runner, recipe: Recipe, reporter: Reporter) -> None:
        self.spec, self.done = recipe.prune.search or SearchSpec(), list[Trial]()
        self.dense: Quality = runner.value("chooser").dense  # what all trials share is made before them
        runner.settle("judge", "scores")
        self._runner, self._recipe, self._reporter = runner, recipe, reporter
        self._of_widths: dict[tuple[int, ...], Trial] = {}

    @property
    def left(self) -> bool:
        return len(self.done) < self.spec.trials

    def judge(self, budget: BudgetSpec) -> Trial:
        """What is found of the network that is planned to a budget."""
        recipe, epochs = self._recipe, self.spec.epochs
        short = recipe.finetune.model_copy(update={"epochs": epochs}) if recipe.finetune and epochs else None
        candidate = self._runner.beside(_with_budget(recipe, budget).model_copy(update={"finetune": short}))
        try:
            plan = candidate.value("plan")
        except BudgetError as error:  # no network is so small, so none is tried
            return _trial(budget, error=str(error))
        widths, share = tuple(plan.widths.values()), plan.macs["slim"] / plan.macs["dense"]
        if widths not in self._of_widths:
            which = f"trial {len(self.done) + 1} of {self.spec.trials} at most"
            self._reporter.stage(f"{which}: {_shown(budget.costs)}, which leaves {share:.1%} of the MACs")
            self._of_widths[widths] = self._note(self._judged(candidate, budget, share))
        return self._of_widths[widths]

    def _judged(self, candidate: Runner, budget: BudgetSpec, share: float) -> Trial:
        try:
            quality = candidate.value("validation")
        except TrainingError as error:  # too small to be fine-tuned
            return _trial(budget, share, error=str(error))
        if reasons := candidate.reasons("pruned"):  # recovery and fine-tuning were left out
            return _trial(budget, share, error=f"its gate failed: {'; '.join(reasons)}")
        measures = found_beside(self.dense, quality, budget.bounds)
        return _trial(budget, share, measures)

    def _note(self, trial: Trial) -> Trial:
        self.done.append(trial)
        self._reporter.stage(f"trial {len(self.done)}: {_outcome(trial, self._recipe.prune.budget)}", **trial.to_data())
        return trial


def _trial(
    budget: BudgetSpec, macs: float | None = None, measures: dict[str, float] | None = None, error: str = ""
) -> Trial:
    """What is kept of a network; it is within the bounds if it was measured and each of them is met."""
    is_within = measures is not None and all(
        is_met(name, measures[name], bound) for name, bound in budget.bounds.items()
    )
    costs = Budget.model_validate(budget.costs)
    return Trial(budget=costs, within=is_within, macs=macs, found=measures or {}, error=error)


def _with_budget(recipe: Recipe, budget: BudgetSpec) -> Recipe:
    return recipe.model_copy(update={"prune": recipe.prune.model_copy(update={"budget": budget})})


def budgets_towards(runner: Runner, budget: BudgetSpec) -> BudgetAt:
    """The budget at each part of the way from no cut (0) to the least that is asked for (1)."""
    if not budget.costs:
        return lambda part: BudgetSpec(macs=max(1 - part, FINE), **budget.bounds)
    graph = runner.value("graph")
    whole = {"macs": graph.macs(), "params": graph.params(), "channels": sum(g.units for g in graph.groups)}
    if "latency_ms" in budget.costs:
        whole["latency_ms"] = runner.value("costs").cost.dense_ms

    def at(part: float) -> BudgetSpec:
        costs = {}
        for name, bound in budget.costs.items():
            if name == "speedup":
                costs[name] = 1 / (1 - part * (1 - 1 / bound))  # evenly in time
            else:
                dense = 1.0 if name != "latency_ms" and bound <= 1 else whole[name]
                costs[name] = dense - part * (dense - bound)
        return BudgetSpec(**(budget.costs if part == 1 else costs), **budget.bounds)

    return at


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _outcome(trial: Trial, budget: BudgetSpec) -> str:
    if trial.error:
        return f"outside the bound: {trial.error}"
    figures = ", ".join(f"{name} {value:.4f} of {budget.bounds[name]:.4g}" for name, value in trial.found.items())
    return f"{'within' if trial.within else 'outside'} the bound ({figures})"
