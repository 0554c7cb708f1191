"""Both tools on a tiny network in all ways, and what the table and the summary say of it."""

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

import structprune as sp
from structprune.cost.model import by_macs
from structprune.errors import BudgetError
from structprune.plan.alignment import KINDS
from structprune.runtimes import Runtime
from structprune.suites.beside_peer import OURS, THEIRS
from structprune.suites.results import Failure
from structprune.suites.speed.plans import fastest
from structprune.suites.speed.report import summary, table
from structprune.suites.speed.rows import (
    ALONE,
    AT_ITS_SPEED,
    EFFICIENT,
    PEER,
    Comparison,
    Contest,
    Prepared,
    Row,
    Settings,
    compare_by,
)

X = torch.randn(1, 3, 10, 10)


@pytest.mark.slow  # budgets of speed are measured
def test_a_tiny_network_is_compared_in_all_ways():
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 5, 1)).eval()
    cost = by_macs(sp.trace(model, X), 1.0, dict.fromkeys(KINDS, 4), Runtime())
    record = compare_by(cost, 0.0, "wide", model, X, Settings(0.15, 0.1, 20))
    assert list(record.rows)[:4] == [THEIRS, f"{THEIRS}, 8", PEER, OURS]
    assert {EFFICIENT, ALONE} < set(record.rows)
    ours = record.rows[OURS]
    assert isinstance(ours, Row), ours
    peer = record.rows[PEER]
    assert ours.gate
    assert ours.cut >= 1.9
    assert (peer.gate, peer.budget) == (None, None)
    assert peer.efficiency == pytest.approx(peer.speedup / peer.cut)
    rows = json.loads(json.dumps(record.to_data()))["rows"]
    assert "gate" not in rows[PEER]
    assert "macs" in rows[OURS]["asked"]


def test_what_a_tool_raises_is_its_row(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    contest = Contest("net", model, X, tmp_path)

    def broken():
        raise KeyError("conv")

    contest.enter("a", broken)
    contest.enter("b", lambda: Prepared(model, 1.0))
    assert contest.entries["a"] == Failure("net", "KeyError: 'conv'")
    assert list(contest.files) == ["dense", "b"]
    assert contest.files["b"].exists()


class Slim:
    """A plan as far as `fastest` looks at it."""

    def __init__(self, slim):
        self.macs = {"slim": slim, "dense": 100}


def test_the_fastest_plan_uses_the_macs_that_may_stay():
    """Up to 1.5 the budget of speed costs no MACs, up to 1.8 a few, and beyond it can't be met."""

    def plan(budget):
        if budget.get("speedup", 1.0) > 1.8:
            raise BudgetError("no plan is so fast")
        return Slim(50 if budget.get("speedup", 1.0) <= 1.5 else 40)

    assert fastest(plan, 0.5).macs["slim"] == 50


def test_the_summary_counts_what_was_reached():
    row = Row(macs=50, cut=2.0, kept=0.7, prepare_s=1.0, speedup=1.9, ci95=(1.8, 2.0), efficiency=0.95)
    rows = {
        PEER: row,
        OURS: row,
        EFFICIENT: replace(row, kept=0.8),
        AT_ITS_SPEED: row,
        ALONE: replace(row, speedup=2.0),
    }
    failed = {PEER: Failure("b", "ValueError: no [graph]"), ALONE: replace(row, speedup=1.0, efficiency=0.5)}
    records = [Comparison("a", 100, 4.0, 0.01, 3.0, rows), Comparison("b", 100, 4.0, 0.01, 3.0, failed)]
    assert summary(records) == [
        "efficiency at 2x MACs: 0.95 or more on 1, 0.85 or more on 1 of 2",
        "where it is sought: 0.95 or more on 1, 0.85 or more on 1 of 2; no less kept than torch-pruning with 16 nor "
        "slower: 1",
        "not slower (by over 1 %) than torch-pruning with 16: 1 of 1 that it can do",
        "more kept at the speed of torch-pruning with 16: 0 of 1 that are as fast",
        "speedup 2.0 reached within 5 %: 1 of 2",
    ]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(records[1]))
    assert "ValueError: no [graph]" in capture.get()
