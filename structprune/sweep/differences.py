"""Which differences between arms exceed their spread over seeds.

Arms are compared where they have the same network, data and budget; a reference that is given by its whole name is
compared with all. Two arms are compared by a paired t-test on the differences within each seed, as runs of one seed
share what does not differ between them: the dense network, the order of training, the split. The p-values within one
family of arms are corrected by Holm's step-down method (Holm 1979), so that the chance of any false claim there stays
below ALPHA.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from ..recipe import Recipe
from .reading import Sweep
from .records import Difference, Family, FinishedRun
from .spread import spread

ALPHA = 0.05
SAME = 1e-4  # of a difference: less is rounding, as qualities are of single precision
_Values = Mapping[str, Mapping[int, float]]  # quality by arm and seed


def families_of(sweep: Sweep, runs: Sequence[FinishedRun]) -> list[Family]:
    """Compares the arms of a sweep.

    Args:
        sweep: The sweep.
        runs: Its runs that finished.

    Returns:
        A family for each network, data, budget and metric that has two arms to compare. It has a difference for each
        pair of arms; with references, for each pair of one of them and another arm.
    """
    recipes = {run.arm.name: run.recipe for run in sweep.runs}
    metrics = {run.arm: run.metric for run in runs}
    kinds: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        kinds.setdefault(f"{metric} {_kind(recipes[name])}", []).append(name)
    has_models = len({str(recipes[name].model) for name in metrics}) > 1
    families = []
    for names in kinds.values():
        recipe = recipes[names[0]]
        budget = ", ".join(f"{k}={v:g}" for k, v in recipe.prune.budget.model_dump(exclude_none=True).items())
        title = f"{recipe.model.name}, {budget}" if has_models else budget
        alike = [run for run in runs if run.metric == metrics[names[0]]]
        families.append(_family(title, alike, names, sweep))
    return [family for family in families if family is not None]


def _kind(recipe: Recipe) -> str:
    parts = (recipe.model, recipe.data, recipe.task, recipe.prune.budget)
    return json.dumps([part.model_dump(mode="json") for part in parts], sort_keys=True)


def _family(title: str, runs: Sequence[FinishedRun], names: Sequence[str], sweep: Sweep) -> Family | None:
    """The family of these arms; None where there is nothing to compare."""
    values: dict[str, dict[int, float]] = {}
    sign = 1 if runs[0].higher_is_better else -1
    for run in runs:
        values.setdefault(run.arm, {})[run.seed] = run.quality
    references = [
        arm.name
        for arm in sweep.arms
        for reference in sweep.spec.reference
        if arm.name in values and (arm.name == reference or (reference in arm.labels.values() and arm.name in names))
    ]
    pairs: Iterator[tuple[str, str]] = itertools.combinations(names, 2)
    if sweep.spec.reference:
        pairs = ((one, other) for one in names if one not in references for other in references)
    grain = _grain([quality for each in values.values() for quality in each.values()])
    differences = _corrected([_difference(one, other, values, sign, grain) for one, other in pairs])
    if not differences:
        return None
    best = max(names, key=lambda name: sign * float(np.mean(list(values[name].values()))))
    return Family(name=title, metric=runs[0].metric, best=best, references=references, differences=differences)


def _grain(qualities: Sequence[float]) -> float:
    """The step in which a metric counts, such as one image of a thousand: the smallest gap between two values; 0 where
    all are the same."""
    gaps = np.diff(np.unique(np.asarray(qualities, dtype=float)))
    gaps = gaps[gaps > 1e-6 * max(1e-12, float(np.abs(qualities).max()))]  # less is rounding
    return float(gaps.min(initial=np.inf)) if len(gaps) else 0.0


def _difference(one: str, other: str, values: _Values, sign: int, grain: float) -> Difference:
    """The difference of two arms over the seeds that both have, the one with the better mean first."""
    seeds = sorted(values[one].keys() & values[other].keys())
    gains = np.array([sign * (values[one][seed] - values[other][seed]) for seed in seeds])
    if len(seeds) and gains.mean() < 0:
        one, other, gains = other, one, -gains
    return Difference(
        better=one,
        worse=other,
        n=len(seeds),
        by=spread(gains.tolist()) if len(seeds) else None,
        p=_p_value(gains, grain),
        p_holm=None,
        exceeds=None,
    )


def _p_value(gains: np.ndarray, grain: float) -> float | None:
    """How likely a mean difference as large as this one is by chance; None of fewer than two.

    Differences that are all the same, as those of a coarse metric may be, have no spread to hold a mean against: they
    tell no more than so many equal signs do. Where they are nearly so, their spread counts as no less than what
    rounding to whole grains makes of two values, grain/√6.
    """
    if len(gains) < 2:
        return None
    mean = abs(float(gains.mean()))
    if mean <= 1e-12:
        return 1.0
    if np.ptp(gains) <= SAME * mean:
        return float(2.0 ** (1 - len(gains)))
    deviation = max(float(gains.std(ddof=1)), grain / math.sqrt(6))
    return float(2 * student.sf(mean / deviation * math.sqrt(len(gains)), len(gains) - 1))


def _corrected(differences: Sequence[Difference]) -> list[Difference]:
    """With Holm's correction for all of them."""
    corrected = holm([each.p for each in differences if each.p is not None])
    values = iter(corrected)
    return [
        each if each.p is None else each.model_copy(update={"p_holm": (p := next(values)), "exceeds": p < ALPHA})
        for each in differences
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number by Holm's step-down method.

    Args:
        p_values: The p-values.

    Returns:
        The corrected ones, in the same order.
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p_values, dtype=float)[order]))
    return corrected.tolist()
