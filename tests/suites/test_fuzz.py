"""What becomes of one random network, and what is printed of many."""

import io
import time

import pytest
from rich.console import Console

from structprune.errors import ModelError
from structprune.suites.equality import Wrong
from structprune.suites.fuzz.checks import Figures, check
from structprune.suites.fuzz.outcomes import DIED, OURS, THEIRS, Outcome, Record, Settings, classify, shrink
from structprune.suites.fuzz.peer import Unclear
from structprune.suites.fuzz.report import barriers, columns, data_of, failures, lines, show, summary
from structprune.suites.fuzz.running import collect, run_all
from structprune.suites.random_networks import Case

CASE = Case((("Plain", 6), ("Glu", 8), ("Plain", 4)), "flatten", 5, 0.5)
FIGURES = Figures(0.5, 4, 2, 6, 3, (("view", "a number in 12 places"),))


def fails(error):
    """A check that raises where the network has the block Glu."""

    def run(case):
        if any(name == "Glu" for name, _ in case.blocks):
            raise error
        return FIGURES

    return run


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [
        (Wrong("own weights", "differs"), "wrong", "own weights"),
        (ModelError("7 of 9 stay"), "refused", "N of N stay"),
        (Unclear("a little"), "unclear", "a statistic over channels"),
        (KeyError("x"), "raised", "?: KeyError in test_fuzz.py:run"),
    ],
)
def test_what_a_check_raises_is_an_outcome(error, outcome, kind):
    result = classify(CASE, fails(error), 5.0)
    assert (result.outcome, result.kind) == (outcome, kind)
    assert shrink(CASE, fails(error), 5.0) == Case((("Glu", 8),), "pool", 5, 0.5)


def test_a_check_that_takes_too_long_has_raised():
    result = classify(CASE, lambda case: time.sleep(5), 0.05)
    assert (result.outcome, result.kind) == ("raised", "timed out")


def test_a_real_network_is_right():
    outcome = classify(Case((("Plain", 6),), "pool", 0, 0.5), check, 60.0)
    assert outcome.outcome == "right"
    assert 0.3 < outcome.macs_cut < 0.7


def test_the_tables_of_many():
    records = [
        Record(CASE, Outcome("right", figures=FIGURES), Outcome("right", figures=0.4)),
        Record(CASE, Outcome("wrong", "own weights", "differs"), None),
        Record(CASE, Outcome("raised", DIED), None),
    ]
    assert list(columns(records)) == [OURS, f"{OURS} on 1", THEIRS]
    assert summary(columns(records)[OURS]) == {
        **{"networks": 3, "right": 1, "wrong": 1, "raised": 1, "refused": 0, "unclear": 0},
        **{"macs_cut": 0.5, "groups_cut": 0.5, "weights_cut": 0.5},
    }
    assert [failure["kind"] for failure in failures(records)] == ["own weights", DIED]
    assert barriers(records) == {"view: a number in N places": 1}
    text = io.StringIO()
    listed = show(records, Settings(), Console(file=text, width=100), smaller=0, most_barriers=3)
    command = f"python tools/fuzz.py --spec '{CASE.spec}' --seed 5 --ratio 0.5"
    assert listed[0]["command"] == command
    assert command in text.getvalue()
    assert data_of(records, listed, with_peer=False)["networks"][0][OURS]["macs_cut"] == 0.5


def test_one_job_runs_here():
    cases = [Case((("Plain", 4 + number),), "pool", number, 0.5) for number in range(2)]
    records = list(run_all(cases, Settings(), peers=0, jobs=1))
    assert [(record.case, record.ours.outcome, record.theirs) for record in records] == [
        (case, "right", None) for case in cases
    ]


def test_networks_are_collected_by_seed_until_ctrl_c(monkeypatch):
    """Records come as they are done, which is in any order."""
    cases = [Case((("Plain", 4),), "pool", seed, 0.5) for seed in (1, 2, 3)]

    def interrupted(*_):
        yield Record(cases[1], Outcome("right"))
        yield Record(cases[0], Outcome("wrong", "own weights", "differs"))
        raise KeyboardInterrupt

    monkeypatch.setattr("structprune.suites.fuzz.running.run_all", interrupted)
    records, was_interrupted = collect(cases, Settings(), peers=0, jobs=1)
    assert was_interrupted
    assert [record.case.seed for record in records] == [1, 2]
    spec, *_, outcome = lines(records[0])
    assert spec.endswith("seed 1, ratio 0.5")
    assert outcome == f"{OURS}: wrong own weights differs"
