"""Which differences exceed the spread: by hand, against SciPy, and what is said of them."""

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from structprune.sweep import records
from structprune.sweep.differences import families_of, holm
from structprune.sweep.reading import read_sweep
from structprune.sweep.summary import sweep_report
from structprune.sweep.verdict import verdict_lines
from tests.sweep.small_sweep import write_sweep

GOOD, FAIR, POOR = [0.95, 0.96, 0.94, 0.97, 0.95], [0.94, 0.962, 0.938, 0.968, 0.944], [0.80, 0.82, 0.79, 0.83, 0.81]
DATA = {"grid": {"prune.criterion": ["l1", "l2", "random"]}, "seeds": 5}


def runs_of(sweep, qualities, higher_is_better=True, cost=1):
    """Runs with these qualities, by arm, a seed each; None where a run failed."""
    return [
        records.FinishedRun(
            arm=arm,
            seed=seed,
            folder=f"{arm}-seed{seed}",
            metric="accuracy" if higher_is_better else "error",
            higher_is_better=higher_is_better,
            dense=0.98,
            quality=quality,
            dense_macs=4000,
            macs=1000 * cost,
            dense_params=400,
            params=100,
            dense_ms=2.0,
            ms=1.0 * cost,
            speedup=2.0,
        )
        for arm, values in qualities.items()
        for seed, quality in zip(sweep.spec.seeds, values, strict=True)
        if quality is not None
    ]


@pytest.fixture
def sweep(tmp_path):
    return read_sweep(write_sweep(tmp_path, DATA))


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_each_pair_is_tested_within_seeds_and_corrected_for_the_number_of_pairs(sweep):
    (family,) = families_of(sweep, runs_of(sweep, {"l1": FAIR, "l2": GOOD, "random": POOR}))
    assert (family.name, family.best, family.references) == ("macs=0.5", "l2", [])
    pairs = {(each.better, each.worse): each for each in family.differences}
    assert set(pairs) == {("l2", "l1"), ("l1", "random"), ("l2", "random")}
    p_values = [ttest_rel(GOOD, FAIR).pvalue, ttest_rel(FAIR, POOR).pvalue, ttest_rel(GOOD, POOR).pvalue]
    ours = [pairs["l2", "l1"], pairs["l1", "random"], pairs["l2", "random"]]
    assert [each.p for each in ours] == pytest.approx(p_values)
    assert [each.p_holm for each in ours] == pytest.approx(holm(p_values))
    assert [each.exceeds for each in ours] == [False, True, True]
    gains = np.subtract(GOOD, POOR)
    assert (ours[2].by.mean, ours[2].by.std) == pytest.approx((gains.mean(), gains.std(ddof=1)))


def test_a_metric_of_which_less_is_better(sweep):
    (family,) = families_of(sweep, runs_of(sweep, {"l1": GOOD, "random": POOR}, higher_is_better=False))
    assert family.best == "random"
    assert [(each.better, each.worse, each.exceeds) for each in family.differences] == [("random", "l1", True)]
    assert family.differences[0].by.mean > 0


def test_differences_without_any_spread_are_no_certainty(sweep):
    """Five equal gains of a coarse metric: as five coins that fall alike, p = 2 / 2⁵; no gain at all is none."""
    (family,) = families_of(sweep, runs_of(sweep, {"l1": [0.5] * 5, "l2": [0.5] * 5, "random": [0.4] * 5}))
    assert [each.p for each in family.differences] == [1.0, 0.0625, 0.0625]
    assert not any(each.exceeds for each in family.differences)


def test_nearly_equal_differences_of_a_coarse_metric_are_no_certainty_either(sweep):
    """Gains of one or two images of a thousand, and of one as single precision has them."""
    base = [0.970, 0.975, 0.968, 0.973, 0.971]
    one = [float(np.float32(quality + 0.001)) for quality in base]
    two = [quality + gain for quality, gain in zip(base, (0.001, 0.001, 0.002, 0.001, 0.001), strict=True)]
    (family,) = families_of(sweep, runs_of(sweep, {"l1": base, "l2": one, "random": two}))
    p_values = {frozenset((each.better, each.worse)): each.p for each in family.differences}
    assert p_values[frozenset(("l1", "l2"))] == 0.0625
    # std 0.000447 of the five is more than 0.001/√6 = 0.000408: as SciPy has it
    assert p_values[frozenset(("l1", "random"))] == pytest.approx(ttest_rel(two, base).pvalue, rel=1e-6)
    values = {"l1": base, "l2": [quality + 0.0015 for quality in base[:4]] + [base[4] + 0.0016], "random": base}
    (family,) = families_of(sweep, runs_of(sweep, values))
    pairs = {frozenset((each.better, each.worse)): each for each in family.differences}
    grain = 0.0004  # the smallest gap between two of these values
    t = 0.00152 / (grain / 6**0.5) * 5**0.5
    assert pairs[frozenset(("l1", "l2"))].p == pytest.approx(2 * student.sf(t, 4), rel=1e-3)


def test_arms_are_compared_over_the_seeds_that_both_have(sweep):
    values = {"l1": GOOD, "random": [None, *POOR[1:]], "l2": [GOOD[0], *[None] * 4]}
    families = families_of(sweep, runs_of(sweep, values))
    pairs = {frozenset((each.better, each.worse)): each for each in families[0].differences}
    assert pairs[frozenset(("l1", "random"))].n == 4
    assert pairs[frozenset(("l1", "l2"))].p is None
    assert pairs[frozenset(("l2", "random"))].by is None


def test_only_what_has_the_same_budget_is_compared(tmp_path):
    cuts = {"4x": {"prune.budget.macs": 0.25}, "2x": {}}
    sweep = read_sweep(write_sweep(tmp_path, {"grid": {"prune.criterion": ["l1", "random"], "cut": cuts}, "seeds": 5}))
    values = {"l1+4x": GOOD, "random+4x": POOR, "l1+2x": FAIR, "random+2x": FAIR}
    families = families_of(sweep, runs_of(sweep, values))
    assert [(family.name, len(family.differences)) for family in families] == [("macs=0.25", 1), ("macs=0.5", 1)]


def test_references_by_a_label_stay_in_their_budget_and_by_name_go_everywhere(tmp_path):
    cuts = {"4x": {"prune.budget.macs": 0.25}, "2x": {}}
    data = {
        "grid": {"prune.criterion": ["l1", "l2", "random"], "cut": cuts},
        "arms": {"long": {"prune.budget.macs": 1, "train.epochs": 2}},
        "reference": ["random", "long"],
        "seeds": 5,
    }
    sweep = read_sweep(write_sweep(tmp_path, data))
    names = [arm.name for arm in sweep.arms]
    families = families_of(sweep, runs_of(sweep, {name: POOR if "random" in name else GOOD for name in names}))
    assert [family.references for family in families] == [["random+4x", "long"], ["random+2x", "long"]]
    pairs = {(each.better, each.worse) for each in families[0].differences}
    assert pairs == {("l1+4x", "random+4x"), ("l2+4x", "random+4x"), ("l1+4x", "long"), ("l2+4x", "long")}


def lines_of(sweep, values):
    return verdict_lines(sweep_report(sweep, runs_of(sweep, values), []))


def test_the_verdict_in_words(sweep):
    lines = lines_of(sweep, {"l1": FAIR, "l2": GOOD, "random": POOR})
    assert "paired t-test with Holm's correction" in lines[0]
    assert lines[1] == "macs=0.5: l2 has the best mean accuracy. Of 3 pairs, 2 differ by more than the spread."
    better, worse = lines[2].split("; not told apart: ")
    assert better.startswith("macs=0.5, beside l2: worse: random (−0.1440 ± 0.0055, p ")
    assert worse.startswith("l1 (−0.0036 ± 0.0046, p 0.15")


def test_one_seed_says_nothing(tmp_path):
    sweep = read_sweep(write_sweep(tmp_path, {**DATA, "seeds": 1}))
    lines = lines_of(sweep, {"l1": [0.9], "l2": [0.8], "random": [0.1]})
    assert lines == ["macs=0.5: no two arms share two seeds, so nothing can be said of their differences."]


def test_fronts_hold_what_nothing_cheaper_reaches(sweep):
    costs = {"l1": 1, "l2": 2, "random": 3}
    values = {"l1": FAIR, "l2": GOOD, "random": POOR}
    runs = [run for name, cost in costs.items() for run in runs_of(sweep, {name: values[name]}, cost=cost)]
    assert sweep_report(sweep, runs, []).fronts == records.Fronts(macs=["l1", "l2"], ms=["l1", "l2"])
    values = {name: [1 - value for value in each] for name, each in values.items()}
    runs = [run for name, cost in costs.items() for run in runs_of(sweep, {name: values[name]}, False, cost)]
    assert sweep_report(sweep, runs, []).fronts.macs == ["l1", "l2"]


def test_nothing_finished(sweep):
    report = sweep_report(sweep, [], [])
    assert (report.families, report.fronts) == ([], records.Fronts(macs=[], ms=[]))
    assert verdict_lines(report) == []
