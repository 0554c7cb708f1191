"""Which run is faster and which is better: only where intervals tell them apart, and where they compare at all."""

import pytest

from structprune.compare import compare_runs
from tests.run_folders import BETTER, FAST, FASTER, GOOD, NOON, write_run


def compared(tmp_path, *runs):
    folders = [write_run(tmp_path / f"run-{index}", **run) for index, run in enumerate(runs)]
    return compare_runs(folders, tmp_path / "out")


def test_intervals_that_are_apart_tell(tmp_path):
    result = compared(tmp_path, {**FAST, **BETTER}, {**FASTER, **GOOD})
    assert (result.speed.best, result.speed.apart) == ("run-1", ["run-0"])
    assert (result.quality.best, result.quality.apart) == ("run-0", ["run-1"])
    assert result.verdict == (
        "run-1 is faster: 3.00× against 2.00× as fast as dense, intervals apart; "
        "run-0 is better: accuracy 95.0 % against 80.0 %, intervals apart"
    )
    assert result.fronts.macs == result.fronts.speed == ["run-1", "run-0"]


def test_intervals_that_overlap_do_not(tmp_path):
    near = {"latency__speedup": 2.04, "latency__ci95": [2.0, 2.1], "quality__final": 290 / 360}
    result = compared(tmp_path, {**FAST, **GOOD}, near)
    assert (result.speed.apart, result.speed.overlap) == ([], ["run-0"])
    assert result.verdict.startswith("speed is not told apart: run-0 2.00× and run-1 2.04× as fast as dense")
    assert "accuracy is not told apart: run-0 80.0 % and run-1 80.6 %" in result.verdict


def test_of_three_the_best_is_named_and_whom_it_is_apart_from(tmp_path):
    near = {"latency__speedup": 2.95, "latency__ci95": [2.8, 3.0], **GOOD}
    result = compared(tmp_path, {**FAST, **GOOD}, {**FASTER, **GOOD}, near)
    assert result.verdict == (
        "run-1 is the fastest of 3: 3.00× as fast as dense, its interval apart from those of run-0, "
        "not told apart from run-2; accuracy is the same in all: 80.0 %"
    )


def test_of_three_that_are_not_told_apart_the_least_and_the_largest_are_named(tmp_path):
    result = compared(tmp_path, *({"quality__final": right / 360} for right in (288, 280, 284)))
    assert "accuracy is not told apart: from 77.8 % to 80.0 %, intervals overlap" in result.verdict


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"environment__processor": "another"}, "they were measured on different machines (processor: "),
        ({"latency__threads": 4}, "they were measured in different settings (threads: 1 and 4)"),
        ({"ended": NOON + 86400}, "at different times (2026-11-27 12:00 and 2026-11-28 12:00 UTC)"),
        ({"ended": None}, "it is not known when run-1 was measured"),
        ({"latency": None}, "run-1 was not timed"),
    ],
)
def test_speeds_of_another_day_or_machine_are_not_compared(tmp_path, other, reason):
    speeds = {} if "latency" in other else FASTER
    result = compared(tmp_path, FAST, {**speeds, **other})
    assert result.speed.best is None
    assert reason in result.speed.reason
    assert f"speed is not compared: {result.speed.reason}" in result.verdict
    assert result.fronts.speed == []


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"quality__metric": "agreement"}, "they have different metrics (accuracy and agreement)"),
        ({"quality__images": 100}, "they were judged on different data (360 and 100 samples)"),
        ({"quality__random_weights": True}, "the weights of run-1 are random"),
        ({"recipe": {"data": {"source": "mnist5k"}}}, "different data (data.source: digits and mnist5k)"),
        ({"quality__final": None}, "run-1 has no finite value"),
    ],
)
def test_qualities_of_other_data_are_not_compared(tmp_path, other, reason):
    if "quality__final" in other:
        other = {"quality__final": float("nan")}
    result = compared(tmp_path, FAST, {**FASTER, **other})
    assert result.quality.best is None
    assert reason in result.quality.reason
    assert result.fronts.macs == []


def test_other_calibration_images_are_no_other_data(tmp_path):
    other = {"recipe": {"data": {"source": "digits", "calibration": {"images": 32}}}}
    assert compared(tmp_path, FAST, {**FASTER, **other}).quality.best is not None


def test_different_networks_are_compared_by_milliseconds_and_not_layer_by_layer(tmp_path):
    other = {**FASTER, "macs__dense": 90000, "latency__slim_ms": 0.009, "latency__slim_ms_ci95": [0.0088, 0.0092]}
    result = compared(tmp_path, {**FAST, "latency__slim_ms_ci95": [0.0039, 0.0041]}, other)
    assert (result.speed.measure, result.speed.best, result.speed.apart) == ("ms", "run-0", ["run-1"])
    assert result.widths == []
    assert any(note.startswith("different networks") for note in result.notes)


def test_int8_beside_float32_is_compared_by_milliseconds(tmp_path):
    result = compared(tmp_path, FAST, {**FASTER, "latency__dtype": "int8"})
    assert (result.speed.measure, result.speed.best, result.speed.unknown) == ("ms", "run-1", ["run-0"])
    assert "run-1 has the better speed, 0.003 ms against 0.004 ms a pass; no interval is known" in result.verdict


def test_a_metric_without_intervals_is_said_to_have_none(tmp_path):
    metric = {"quality__metric": "psnr", "quality__dense": 31.0, "quality__pruned": 20.0, "quality__recovered": 22.0}
    result = compared(tmp_path, {**metric, "quality__final": 30.0}, {**metric, "quality__final": 29.0})
    assert result.quality.unknown == ["run-1"]
    assert "run-0 has the better psnr, 30.0000 against 29.0000; no interval is known" in result.verdict


def test_a_failed_gate_is_said_first(tmp_path):
    result = compared(tmp_path, FAST, {"gate__passed": False, "latency": None})
    assert result.verdict.startswith("the gate of run-1 failed; speed is not compared: run-1 was not timed")
