"""What is passed, failed and not compared is told apart in the terminal and on the page."""

import re

import torch

import structprune as sp
from structprune.report.html import gate_table
from structprune.report.table import gate_caption, gate_rows
from structprune.verify import Comparison, Gate
from tests.example_networks import Chain, pruned, randomise


def _gate():
    comparison = Comparison(max_abs=1e-8, max_rel=1e-7, tolerance=1e-4, state="passed", batches=[1, 2])
    return {name: Comparison(**vars(comparison)) for name in Gate.__dataclass_fields__ if name != "weights"}


def test_all_passed():
    told = Gate(**_gate()).record()
    assert gate_caption(told) == (
        "gate passed: largest relative difference masked/slim 1.0e-07, in float64 1.0e-07, reload 1.0e-07, "
        "ONNX 1.0e-07, after a training step 1.0e-07"
    )
    assert [row.comparison.state for row in gate_rows(told)] == ["passed"] * 6
    assert "not compared" not in gate_table(told)


def test_what_was_not_compared_is_said_with_its_reason():
    comparisons = _gate()
    for name in ("onnx", "training"):
        comparisons[name] = Comparison(tolerance=1e-4)
        comparisons[name].skip(f"no {name} [here]")
    gate = Gate(**comparisons)
    told = gate.record()
    assert told.passed
    assert told.not_compared == ["onnx: not compared: no onnx [here]", "training: not compared: no training [here]"]
    caption = gate_caption(told)
    assert "onnx: not compared: no onnx \\[here]" in caption
    assert "ONNX 1.0e-07" not in caption
    page = gate_table(told)
    assert page.count("not compared</span>") == 2
    assert page.count("passed</span>") == 4
    assert len(re.findall("no (onnx|training)", page)) == 2
    assert "0.00e+00" not in page  # nothing was measured


def test_nothing_is_proven_without_the_first_two():
    comparisons = _gate()
    comparisons["float64"] = Comparison(tolerance=1e-9)
    gate = Gate(**comparisons)
    assert not gate.passed
    assert gate.reasons() == ["float64: nothing was compared"]


def test_failures_are_failures():
    comparisons = _gate()
    comparisons["training"].fail("gradient of a.weight differs")
    gate = Gate(**comparisons)
    assert gate.reasons() == ["training: gradient of a.weight differs"]
    assert "failed</span>" in gate_table(gate.record())
    assert gate_caption(gate.record()).startswith("gate failed")


def test_a_gate_of_a_real_network_is_shown():
    model, x = randomise(Chain()), torch.randn(2, 3, 10, 10)
    plan, slim = pruned(model, x[:1])
    told = sp.verify(model, slim, plan, x).record()
    assert all(row.is_measured for row in gate_rows(told))
    assert gate_caption(told).startswith("gate passed")
