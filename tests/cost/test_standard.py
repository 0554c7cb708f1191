"""The multiples that plans take unasked: learned once, kept, shared, or from a table."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.cost import known_multiples, learning, standard, standard_multiples
from structprune.cost.cached_records import Standard
from structprune.errors import BudgetError

X = torch.randn(1, 3, 10, 10)
STEPS = {"conv": 8, "depthwise": 8, "linear": 4}


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """A cache of its own, timing allowed, and a measurement that is made up: how often it was made."""
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")
    _forget()
    made = []

    def measure(runtime, **_):
        made.append(runtime)
        return {kind: [multiple] for kind, multiple in STEPS.items()}

    monkeypatch.setattr(learning, "measure_multiples", measure)
    return made


def _forget():
    """As in another process."""
    standard.multiples_of_the_day.cache_clear()


def _scored():
    layers = [nn.Conv2d(3, 48, 1), nn.ReLU(), nn.Conv2d(48, 40, 1), nn.ReLU(), nn.Conv2d(40, 4, 1)]
    graph = sp.trace(nn.Sequential(*layers).eval(), X)
    return graph, sp.score(graph, "l1")


def test_plans_are_aligned_unless_they_are_told_otherwise(timed):
    graph, scores = _scored()
    plan = sp.plan(graph, scores, {"macs": 0.5})
    assert plan.constraints["align"] == STEPS
    assert all(width % 8 == 0 for width in plan.widths.values())
    assert plan.keep == sp.plan(graph, scores, {"macs": 0.5}, align="auto").keep
    assert plan.keep == sp.plan(graph, scores, {"macs": 0.5}, align=STEPS).keep
    free = sp.plan(graph, scores, {"macs": 0.5}, align=1)
    assert any(width % 8 for width in free.widths.values())
    assert free.constraints["align"] == 1
    assert len(timed) == 1


def test_steps_are_learned_once_and_kept(timed):
    assert standard_multiples() == standard_multiples() == Standard(STEPS)
    _forget()
    assert standard_multiples().steps == STEPS
    assert len(timed) == 1


@pytest.mark.thorough
def test_processes_share_what_one_has_learned(timed, tmp_path):
    standard_multiples()
    code = (
        "from structprune.cost import learning, standard_multiples; learning.measure_multiples = None; "
        "print(standard_multiples())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(Standard(STEPS))


def test_steps_that_timings_do_not_agree_on_are_kept_for_the_day(timed, monkeypatch, tmp_path):
    def unsure(runtime, **_):
        timed.append(runtime)
        return {"conv": [8, 16], "depthwise": [16], "linear": [16]}

    monkeypatch.setattr(learning, "measure_multiples", unsure)
    graph, scores = _scored()
    plan = sp.plan(graph, scores, {"macs": 0.5})
    assert plan.constraints["align"] == {"conv": 16, "depthwise": 16, "linear": 16}
    assert "timings do not agree on the multiple of the widths of conv (8 or 16)" in " ".join(plan.notes)
    _forget()
    assert standard_multiples().notes[0] in plan.notes
    assert len(timed) == 1
    (path,) = tmp_path.glob("steps-today-*.json")
    entry = json.loads(path.read_text())
    path.write_text(json.dumps({**entry, "value": {**entry["value"], "steps": {"conv": 0}}}))  # a file that was edited
    _forget()
    assert standard_multiples().notes[0] in plan.notes
    assert len(timed) == 2
    monkeypatch.setattr(learning, "measure_multiples", lambda *_, **__: {kind: [n] for kind, n in STEPS.items()})
    learning.learn_multiples(refresh=True)  # since, on a quiet machine
    _forget()
    assert standard_multiples() == Standard(STEPS)


def test_timing_may_be_switched_off(timed, monkeypatch):
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "off")
    graph, scores = _scored()
    plan = sp.plan(graph, scores, {"macs": 0.5})
    assert plan.constraints["align"] == known_multiples()
    assert timed == []
    assert "not of what was timed here (STRUCTPRUNE_TIMING=off)" in " ".join(plan.notes)
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "of")
    with pytest.raises(BudgetError, match="STRUCTPRUNE_TIMING=of: give on or off"):
        sp.plan(graph, scores, {"macs": 0.5})
    assert sp.plan(graph, scores, {"macs": 0.5}, align=1).keep  # asks for no multiples


def test_where_learning_fails_the_table_stands_in(timed, monkeypatch, tmp_path):
    def fails(runtime, **_):
        raise RuntimeError("no kernel here\nand more")

    monkeypatch.setattr(learning, "measure_multiples", fails)
    found = standard_multiples()
    assert found.steps == known_multiples()
    assert found.notes[0].endswith("not of what was timed here (RuntimeError: no kernel here)")


@pytest.mark.parametrize("multiples", [{"conv": ["many"]}, {"conv": [0]}, {"odd": [8]}, {"conv": [8, 16]}, [8], None])
def test_steps_that_were_edited_are_learned_anew(timed, tmp_path, multiples):
    standard_multiples()
    (path,) = tmp_path.glob("steps-*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "value": multiples}))
    assert not learning.multiples_are_kept(sp.runtimes.Runtime())
    assert learning.learn_multiples() == STEPS
    assert len(timed) == 2


def test_a_cache_that_can_t_be_written_is_no_error(timed, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path / "file" / "folder"))
    assert standard_multiples().steps == STEPS


@pytest.mark.parametrize(
    ("instructions", "machine", "block"),
    [
        ("avx avx2 avx512bw avx512f fma", "x86_64", 16),
        ("avx avx2 fma", "x86_64", 8),
        ("asimd asimdhp sve", "aarch64", 16),
        ("", "arm64", 16),
        ("", "AMD64", 8),
    ],
)
def test_the_table_of_processors(monkeypatch, instructions, machine, block):
    here = standard.environment().model_copy(update={"instructions": instructions})
    monkeypatch.setattr(standard, "environment", lambda: here)
    monkeypatch.setattr(standard.platform, "machine", lambda: machine)
    assert known_multiples() == {"conv": block, "depthwise": block, "linear": 16}


def test_whole_steps_that_can_t_meet_the_budget_are_halved_and_that_is_said(timed):
    graph, scores = _scored()
    plan = sp.plan(graph, scores, {"macs": 0.05}, max_ratio=0.99)
    assert plan.macs["slim"] <= 0.05 * plan.macs["dense"]
    assert any("whole multiples of the runtime can't meet the budget: widths are in 1/" in note for note in plan.notes)


def test_the_steps_of_given_costs_come_first(timed):
    @dataclasses.dataclass
    class Costs:
        multiples: dict
        dense_ms: float = 1.0

        @property
        def latency(self):
            raise AssertionError("no budget asks for it")

    graph, scores = _scored()
    with pytest.raises(AssertionError):
        sp.plan(graph, scores, {"macs": 0.5}, cost=Costs({"conv": 4}))
    assert timed == []
    with pytest.raises(
        BudgetError, match=r"align='sixteen': give a whole number, the multiples of a runtime .* or 'auto'"
    ):
        sp.plan(graph, scores, {"macs": 0.5}, align="sixteen")


def test_what_is_kept_names_the_machine(timed, tmp_path):
    standard_multiples()
    (path,) = tmp_path.glob("steps-*.json")
    assert set(json.loads(path.read_text())["key"]) >= {"machine", "runtime", "threads", "dtype"}
