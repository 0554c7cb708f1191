"""The simulation of a sweep on other numbers of workers, against times that are worked out by hand."""

import json
from types import SimpleNamespace

import pytest

from structprune.errors import StructPruneError
from structprune.suites import sweep_scaling
from structprune.suites.sweep_scaling import (
    RunCosts,
    makespan,
    model_rows,
    process_rows,
    read_costs,
    seed_rows,
    worker_rows,
)


def runs():
    """Four runs of 10 s of their own, two to a seed, that share what takes 30 s to make."""
    return [
        RunCosts(f"{arm}{seed}", seed, f"net {arm}", [(f"dense{seed}", 30), (None, 10)])
        for arm in "ab"
        for seed in (0, 1)
    ]


def test_what_is_shared_is_made_once_and_waited_for():
    assert makespan(runs(), 1) == 30 + 10 + 30 + 10 + 10 + 10
    assert makespan(runs(), 1, shared=False) == 4 * 40
    assert makespan(runs(), 2) == 30 + 10 + 10  # each worker makes one dense network
    # the third and the fourth start at once, wait for 30 s and take 10 s
    assert makespan(runs(), 4) == makespan(runs(), 9) == 40


def test_the_tables_follow():
    assert worker_rows(runs(), [1, 2, 4]) == [
        (1, 100 / 60, 1.0, 1.0),
        (2, 50 / 60, 2.0, 1.0),
        (4, 40 / 60, 2.5, 0.625),
    ]
    assert seed_rows(runs()) == [(1, 50 / 60, 80 / 60), (2, 100 / 60, 160 / 60)]
    assert model_rows(runs()) == [(1, 80 / 60, 80 / 60), (2, 100 / 60, 160 / 60)]


def test_processes_of_a_run_share_what_trains():
    parts = [("train-1", 60), (None, 20), ("plan-1", 10), ("finetune-2", 30)]
    assert process_rows([RunCosts("a", 0, "net", parts)], [1, 3]) == [(1, 2.0, 1.0), (3, 1.0, 2.0)]
    both = [RunCosts("a", 0, "net", parts), RunCosts("b", 1, "net", [(None, 60)])]
    assert process_rows(both, [3]) == [(3, 1.0, 1.5)]


def logged(folder, monkeypatch, logs):
    for name, events in logs.items():
        (folder / name).mkdir()
        lines = [json.dumps({"time": time, "event": event, **more}) for time, event, more in events]
        (folder / name / "log.jsonl").write_text("\n".join(lines))
        (folder / name / "recipe.yaml").write_text(f"model: {{name: net-{name}}}")
    report = SimpleNamespace(runs=[SimpleNamespace(folder=name, seed=0) for name in logs])
    monkeypatch.setattr(sweep_scaling, "read_record", lambda path, kind: report)
    return read_costs(folder, start=5)


def test_logs_are_read_as_what_was_made_what_was_found_and_the_time_between(tmp_path, monkeypatch):
    logs = {
        "a": [
            (100, "stage", {}),
            (120, "epoch", {}),
            (131, "made", {"artefact": "x", "seconds": 30}),
            (140, "finished", {}),
        ],
        "b": [
            (200, "stage", {}),
            (202, "found", {"artefact": "x"}),
            (203, "found", {"artefact": "old"}),
            (204, "finished", {}),
        ],
    }
    a, b = logged(tmp_path, monkeypatch, logs)
    assert [part for part in a.parts if part[1]] == [(None, 5), (None, 1), ("x", 30), (None, 9)]
    assert (a.model, b.model) == ('{"name": "net-a"}', '{"name": "net-b"}')
    # what no run of the sweep has made took it nothing
    assert [part for part in b.parts if part[1]] == [(None, 5), (None, 2), ("x", 30), (None, 2)]


def test_a_run_that_waited_for_another_counts_what_that_one_took(tmp_path, monkeypatch):
    logs = {  # the second waits for the last 10 of the first one's 30 seconds, which its log has as those of making
        "a": [(100, "stage", {}), (120, "epoch", {}), (131, "made", {"artefact": "x", "seconds": 30})],
        "b": [(119, "stage", {}), (131, "made", {"artefact": "x", "seconds": 10})],
        "c": [(200, "stage", {}), (202, "found", {"artefact": "x"})],
    }
    for run, own in zip(logged(tmp_path, monkeypatch, logs), (1, 2, 2), strict=True):
        assert [part for part in run.parts if part[1]] == [(None, 5), (None, own), ("x", 30)]


def test_a_sweep_of_which_no_run_has_finished_is_refused(tmp_path, monkeypatch):
    with pytest.raises(StructPruneError, match="no run has finished"):
        logged(tmp_path, monkeypatch, {})


def test_a_folder_without_a_finished_sweep_is_refused(tmp_path):
    with pytest.raises(StructPruneError, match=r"sweep\.json"):
        read_costs(tmp_path, start=5)
