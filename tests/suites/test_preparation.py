"""Preparation by both tools on a tiny network, what is kept of a process that ends early, and what records say."""

import json
import math

import pytest
import torch
from rich.console import Console
from torch import nn

from structprune.errors import BudgetError
from structprune.suites.beside_peer import OURS, THEIRS
from structprune.suites.preparation import running, tasks
from structprune.suites.preparation.records import CAPTURE, TRACE, WORKLOADS, Preparation, Settings, Share, summary
from structprune.suites.preparation.report import lines, table
from structprune.suites.preparation.running import preparation_of, prepare
from structprune.suites.preparation.tasks import check_shapes, reachable, time_preparation
from structprune.suites.worker import Notes
from tests.example_networks import Chain

X = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))
BOTH = Preparation("a", 9, 0.5, {}, {CAPTURE: [0.5], TRACE: [1.0], OURS: [1.0, 2.0, 6.0], THEIRS: [2.0, 8.0, 4.0]})
OTHER = Preparation("b", 9, 0.5, {}, {CAPTURE: [1.0], TRACE: [1.5], OURS: [3.0], THEIRS: [1.0]})
ALONE = Preparation("c", 9, 0.9, {THEIRS: "KeyError: [x]"}, {CAPTURE: [2.0], TRACE: [0.5], OURS: [1.0]})


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Chain().eval()
    model.num_classes = 5  # torch-pruning's graph leaves a layer of so many outputs
    return model


@pytest.fixture
def stages():
    return []


@pytest.fixture
def notes(stages):
    return Notes(lambda message: stages.append(message["stage"]))


def test_all_take_turns_after_a_run_that_does_not_count(model, notes, stages):
    time_preparation(model, X, WORKLOADS, 2, False, notes)
    assert stages == [*WORKLOADS, *WORKLOADS, *WORKLOADS[::-1]]
    record = notes.record
    assert (record["budget"], record["errors"]) == (0.5, {})
    assert record["nodes"] > 5
    assert {name: len(seconds) for name, seconds in record["turns"].items()} == dict.fromkeys(WORKLOADS, 2)
    assert model.conv1.out_channels == 8


def test_what_a_tool_raises_is_its_error_and_the_others_go_on(model, notes, monkeypatch):
    monkeypatch.setattr(tasks, "prune_by_ratio", lambda *_, **__: nn.Flatten())
    time_preparation(model, X, (OURS, THEIRS), 1, False, notes)
    assert notes.record["errors"] == {
        THEIRS: "RuntimeError: the pruned network's output is [(1, 300)] instead of [(1, 5)]"
    }
    assert list(notes.record["turns"]) == [OURS]


def test_the_smallest_budget_is_planned_where_half_can_not_be_met(model, monkeypatch):
    plan, half = tasks.sp.plan, tasks.SHARE
    budgets = []

    def refusing(graph, scores, budget, **options):
        budgets.append(budget)
        if budget == {"macs": half}:
            raise BudgetError("not below macs >= 0.75")
        return plan(graph, scores, budget, **options)

    monkeypatch.setattr(tasks.sp, "plan", refusing)
    assert reachable(model, X) == pytest.approx(0.75)
    assert budgets == [{"macs": 0.5}]


def test_a_network_that_runs_as_before_is_right(model):
    check_shapes(model, Chain(), X)
    with pytest.raises(RuntimeError, match=r"output is \[\(1, 3, 10, 10\)\]"):
        check_shapes(model, nn.ReLU(), X)


def pool_of(*answers):
    """A pool whose processes answer so, one after the other; and the tasks that they got."""
    waiting, seen = list(answers), []

    def run(module, tasks, limits):
        seen.append((tasks[0], limits))
        yield tasks[0], waiting.pop(0)

    return run, seen


ENDED = {"nodes": 9, "budget": 0.5, "errors": {}, "turns": {OURS: [1.0]}}


def test_torch_pruning_is_left_out_if_it_ended_the_process(monkeypatch):
    died = {"status": "error", "error": "signal 11", "message": f"died while at {THEIRS}", "stage": THEIRS}
    run, seen = pool_of({**ENDED, **died, "frames": ["Segmentation fault"]}, {**ENDED, "status": "done"})
    monkeypatch.setattr(running, "run", run)
    record = prepare("a", Settings(repeats=2, timeout=5.0))
    assert record.errors == {THEIRS: f"signal 11: died while at {THEIRS} (Segmentation fault)"}
    assert (record.stage, record.seconds) == ("done", {OURS: [1.0]})
    assert [task["workloads"] for task, _ in seen] == [list(WORKLOADS), list(WORKLOADS[:-1])]
    assert tasks.__name__ == running.TASKS
    task, limits = seen[0]
    assert (task["model"], task["repeats"], task["attn_dim"]) == ("a", 2, False)
    assert (limits.stages[THEIRS], limits.stages[OURS]) == (5.0, 30.0)


def test_what_is_known_of_a_process_that_ended_early_stays():
    timed_out = {**ENDED, "status": "timeout", "stage": TRACE, "message": "over 5 s"}
    record = preparation_of("a", timed_out)
    assert (record.stage, record.errors, record.nodes) == (TRACE, {TRACE: "timed out"}, 9)
    record = preparation_of("a", {"status": "memory", "message": "over 10 GiB while at start"})
    assert record == Preparation("a", None, None, {"start": "over 10 GiB while at start"}, {}, "start")


@pytest.mark.slow  # a process that imports torch and timm
def test_a_model_that_can_not_be_built_is_a_record():
    record = prepare("no_such_model", Settings(repeats=1))
    assert list(record.errors) == ["build"]
    assert "no_such_model" in record.errors["build"]


def test_the_summary_is_of_the_networks_that_both_can_do():
    assert BOTH.ratio() == 0.5  # the median of the turns' ratios, and not the ratio of the medians
    assert math.isnan(ALONE.ratio())
    result = summary([BOTH, OTHER, ALONE])
    assert (result.models, result.both) == (3, 2)
    assert result.shares[OURS] == Share(sum=(2 + 3) / (4 + 1), median=(0.5 + 3) / 2)
    assert result.longest == {CAPTURE: (2.0, "c"), TRACE: (1.5, "b")}
    assert list(json.loads(json.dumps(result.to_data()))) == [
        *("models", "both", OURS, CAPTURE, "longest_capture", "longest_trace")
    ]
    assert lines(result) == [
        f"{THEIRS} and {OURS} can both do 2 of 3 models",
        f"{OURS}'s seconds ÷ {THEIRS}'s on these: sum 1.00, median 1.75",
        f"{OURS}'s capture alone ÷ {THEIRS}'s on these: sum 0.30, median 0.62",
        "longest capture of all: 2.00 s (c)",
        "longest trace of all: 1.50 s (b)",
    ]
    assert summary([ALONE]).shares == {}


def test_the_table_has_a_line_for_each_network():
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table([BOTH, ALONE]))
    rows = [" ".join(line.replace("│", " ").split()) for line in capture.get().splitlines() if line.startswith("│")]
    assert rows == ["a 9 2.00 4.00 0.50 0.50", f"c 9 1.00 - - 2.00 {THEIRS}: KeyError: [x]"]
