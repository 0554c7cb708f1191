"""What the zoo says of its records, as a results file holds them."""

import json

import pytest

from structprune.suites.pool import Limits
from structprune.suites.results import Results
from structprune.suites.zoo import sweep
from structprune.suites.zoo.page import document
from structprune.suites.zoo.records import merged, reached, silent_mismatch, trouble
from structprune.suites.zoo.summary import barrier_summary, counts, plan_summary, summary
from structprune.suites.zoo.sweep import Settings, Zoo

BARRIER = {"op": "conv1d", "module": "gate", "reason": "reads its neighbours", "channels": 8, "line": "net.py:3"}
PASSED = {
    **{"family": "resnet", "model": "tiny", "status": "passed", "stage": "verify", "traced": True, "nodes": 9},
    **{"groups": 3, "cut": 2.0, "form": "module", "gate_passed": True, "onnx_passed": True, "barriers": []},
    **{"forms": {"module": {"cut": 2.0, "prunable": 0.9}, "graph": {"prunable": 0.95}}, "total_seconds": 1.0},
    **{"asked": {"seed": 0, "budget": 0.5}, "made": {"date": "2026-11-01", "versions": {"timm": "1.0"}}},
    **{"gate": {"masked_vs_slim": {"passed": True, "max_rel": 0.0, "tolerance": 1e-4, "detail": ""}}, "peak_memory": 1},
}
SHORT = {**PASSED, "family": "eca", "model": "short", "cut": 1.2, "barriers": [BARRIER, BARRIER]}
WRONG = {**PASSED, "family": "odd", "model": "wrong", "status": "failed-gate", "gate_passed": False, "reasons": ["off"]}
WRONG["gate"] = {"float64": {"passed": False, "max_rel": 0.5, "tolerance": 1e-9, "detail": ""}}
BROKEN = {**{key: PASSED[key] for key in ("asked", "made")}, "family": "big", "model": "huge", "status": "timeout"}
BROKEN["message"] = "over 5 s while at trace"


def test_what_a_record_says():
    assert [reached(record) for record in (PASSED, SHORT, WRONG, BROKEN)] == [True, False, False, False]
    assert [silent_mismatch(record) for record in (PASSED, SHORT, WRONG, BROKEN)] == [False, False, True, False]
    (entry,) = merged(SHORT["barriers"])
    assert (entry["channels"], entry["count"]) == (16, 2)
    assert trouble(SHORT) == "cut 1.20×; conv1d at gate, 2 times: reads its neighbours"
    assert trouble(BROKEN) == "timeout: over 5 s while at trace"


def test_the_counts_and_the_page():
    records = [PASSED, SHORT, WRONG, BROKEN]
    line = counts(records)
    assert line == (
        "4 models: 3 captured, 1 cut at least 1.5× with gate and ONNX parity passed, 1 passed below 1.5×, "
        "1 failed the gate (1 silent mismatch), 0 refused, 1 error (1 timed out)"
    )
    assert summary(records)[-1] == line
    page = document(
        records, {"none": "timm has no model of it"}, {"command": "x", "budget": 0.5, "seed": 0, "families": 5}
    )
    assert f"**{line}.**" in page
    assert "Made 2026-11-01 with timm 1.0." in page
    assert "| resnet | tiny | 9 | 3 | 0.90 / 0.95 | 2.00× | module | passed | passed | 0 |" in page
    assert "Family none: timm has no model of it." in page


def test_plans_and_barriers():
    planned = {"model": "a", "status": "planned", "budget": 0.5}
    refused = {"model": "b", "status": "refused", "error": "BudgetError", "message": "12 of 13 stay"}
    assert plan_summary([planned, refused], 0.5)[0] == "1 × refused: BudgetError: N of N stay [b]"
    trace = {"prunable": 0.25, "barriers": [BARRIER], "unexplained": []}
    lines = barrier_summary([{"model": "a", "status": "traced", "traces": {"module": trace}}])
    assert "reads its neighbours | conv1d | 1 | 8 | a net.py:3" in lines


def test_results_that_are_there_stay(tmp_path, monkeypatch):
    """A file that an earlier version has written is gone on with: nothing that passed runs again."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"results": {"tiny": PASSED, "huge": BROKEN}}))
    asked = []

    def follow(module, tasks, limits, title):
        asked.extend(task["model"] for task in tasks)
        return iter(())

    monkeypatch.setattr(sweep, "follow", follow)
    zoo = Zoo.__new__(Zoo)
    for choice, waiting in (({}, []), ({"failed": True}, ["huge"]), ({"again": True}, ["tiny", "huge"])):
        zoo.settings = Settings("sweep", 0, 0.5, Limits(1, 1.0, 1), **choice)
        records = zoo.perform([("resnet", "tiny"), ("big", "huge")], Results(path))
        assert asked == waiting
        assert records == [PASSED, BROKEN]
        asked.clear()
    zoo.settings = Settings("sweep", 1, 0.5, Limits(1, 1.0, 1))
    zoo.perform([("resnet", "tiny")], Results(path))
    assert asked == ["tiny"], "another seed is another result"


def test_an_unknown_model_is_one_line(capsys):
    zoo = Zoo.__new__(Zoo)
    zoo.families, zoo.family_of = {"resnet": ["resnet18"]}, {"resnet18": "resnet"}
    with pytest.raises(SystemExit):
        zoo.select(["resnet81"], [], None)
    assert "error: unknown model 'resnet81': did you mean resnet18?" in capsys.readouterr().err
