"""A run's verdict: what is said first, and how bad it is."""

import copy
import json
from pathlib import Path

import pytest

from structprune.report import Report, report_table, verdict_of
from structprune.report.table import also_rows, int8_rows, summary_rows
from structprune.runtimes.other_runtimes import OtherRuntime

EXAMPLE = json.loads((Path(__file__).parent / "report.json").read_text())
EXAMPLE |= {"verdict": None, "search": None, "budget": {"macs": 0.25}}
EXAMPLE["latency"] |= {"speedup": 3.3, "ci95": [3.2, 3.4], "dense_ms": 3.3, "slim_ms": 1.0}
EXAMPLE["params"]["cut"], EXAMPLE["macs"]["cut"] = 4.4, 4.0
EXAMPLE["quality"] = {"metric": "accuracy", "images": 360, "dense": 1.0, "pruned": 0.1, "final": 1.0}

REPORT = Report.model_validate(EXAMPLE)


def changed(**parts):
    """The example with other values; those of a mapping are changed one by one."""
    data = copy.deepcopy(EXAMPLE)
    for name, values in parts.items():
        data[name] = {**data[name], **values} if isinstance(values, dict) else values
    return Report.model_validate(data)


def test_a_good_run():
    verdict = verdict_of(REPORT)
    assert verdict.state == "good"
    speed, size, quality = verdict.text.split("; ")
    assert (speed, size) == ("3.30× faster (95 %: 3.20 to 3.40)", "4.4× smaller, 4.0× fewer MACs")
    assert quality == "accuracy kept: 1.0000 to 1.0000 on 360 images"


def test_a_loss_that_few_images_do_not_tell_from_chance_is_not_called_kept():
    verdict = verdict_of(changed(quality={"images": 15, "dense": 11 / 15, "final": 8 / 15}))
    assert verdict.state == "poor"
    assert verdict.text.endswith("accuracy may be lost: 0.7333 to 0.5333 on 15 images, too few to tell")
    assert "kept" in verdict_of(changed(quality={"images": 15, "dense": 11 / 15, "final": 11 / 15})).text


@pytest.mark.parametrize(
    ("parts", "state", "first"),
    [
        ({"quality": {"final": 0.997}}, "good", "3.30× faster"),  # one image of 360
        ({"quality": {"dense": 0.95, "final": 0.93}}, "good", "3.30× faster"),  # 2 points; two errors are 3.5
        ({"quality": {"dense": 0.95, "final": 0.91}}, "poor", "3.30× faster"),  # 4 points; two errors are 3.8
        ({"quality": {"images": 36000, "dense": 0.95, "final": 0.93}}, "poor", "3.30× faster"),
        ({"quality": {"dense": 0.95, "final": 0.2}}, "broken", "accuracy broken: 0.9500 to 0.2000 on 360 images"),
        ({"latency": {"speedup": 0.8, "ci95": [0.7, 0.9]}}, "poor", "slim is slower than dense: 0.80× as fast"),
        ({"latency": {"speedup": 0.99, "ci95": [0.9, 1.1]}}, "poor", "slim is no faster than dense"),
        (
            {"latency": {"speedup": 1.02, "ci95": [0.9, 1.1]}},
            "poor",
            "not shown to be faster: 1.02× (95 %: 0.90 to 1.10)",
        ),
        (
            {"budget": {"speedup": 4.0, "latency_ms": 3.0}},
            "poor",
            "3.30× faster (95 %: 3.20 to 3.40), short of the 4.00×",
        ),
        ({"quality": {"final": float("nan")}}, "broken", "accuracy broken: 1.0000 to nan on 360 images"),
        ({"budget": {"speedup": 3.4}}, "good", "3.30× faster (95 %: 3.20 to 3.40), within 3 % of the 3.40× asked for;"),
        ({"budget": {"speedup": 3.3}}, "good", "3.30× faster (95 %: 3.20 to 3.40);"),
        ({"budget": {"speedup": 4.0}}, "poor", "3.30× faster (95 %: 3.20 to 3.40), short of the 4.00× asked for"),
        ({"budget": {"latency_ms": 0.5}}, "poor", "3.30× faster (95 %: 3.20 to 3.40), short of the 6.60× asked for"),
        (
            {"budget": {"speedup": 3.4}, "latency": {"ci95": [2.9, 3.9]}},
            "poor",
            "at least 2.90× faster (95 %: 2.90 to 3.90; too wide to quote a factor), which does not show the 3.40×",
        ),
        (
            {"budget": {"speedup": 3.45}, "latency": {"ci95": [3.2, 3.42]}},
            "poor",
            "3.30× faster (95 %: 3.20 to 3.42), which does not show the 3.45× asked for",
        ),
        ({"latency": None}, "good", "4.4× smaller, 4.0× fewer MACs"),
        ({"gate": {"passed": False}}, "broken", "not proven: the gate failed"),
    ],
)
def test_what_is_bad_is_said(parts, state, first):
    verdict = verdict_of(changed(**parts))
    assert (verdict.state, verdict.text[: len(first)]) == (state, first)


@pytest.mark.parametrize(
    ("final", "weights", "state", "said"),
    [
        (0.95, False, "good", "; agrees with the dense network on 95.0% of 64 images"),
        (0.65, False, "poor", "quality lost: agrees with the dense network on 65.0%"),
        (0.05, False, "broken", "quality lost: agrees with the dense network on 5.0%"),
        (0.05, True, "good", "quality unknown: the weights are random"),
    ],
)
def test_without_labels_the_dense_network_is_the_measure(final, weights, state, said):
    quality = {"metric": "agreement", "images": 64, "dense": 1.0, "final": final, "random_weights": weights}
    verdict = verdict_of(changed(quality=quality))
    assert verdict.state == state
    assert said in verdict.text


@pytest.mark.parametrize(
    ("metric", "dense", "final", "higher", "state"),
    [
        ("cosine with dense", 1.0, 0.95, True, "good"),
        ("cosine with dense", 1.0, 0.89, True, "poor"),  # a tenth of it, not chance in 20 images
        ("map50 with dense", 0.8, 0.76, True, "good"),
        ("map50 with dense", 0.8, 0.3, True, "broken"),
        ("relative error", 0.0, 0.05, False, "good"),
        ("relative error", 0.0, 0.15, False, "poor"),
        ("relative error", 0.0, 0.8, False, "broken"),
    ],
)
def test_likeness_to_the_dense_network_allows_for_no_chance(metric, dense, final, higher, state):
    quality = {"metric": metric, "images": 20, "dense": dense, "final": final, "higher_is_better": higher}
    verdict = verdict_of(changed(quality={**quality, "random_weights": False}))
    assert verdict.state == state
    assert f"{metric}: {dense:.4f} to {final:.4f} on 20 images" in verdict.text


def test_an_interval_that_is_too_wide_quotes_the_least_and_no_factor():
    wide = changed(latency={"speedup": 11.2, "ci95": [6.36, 91.81]})
    assert verdict_of(wide).text.startswith(
        "at least 6.36× faster (95 %: 6.36 to 91.81; too wide to quote a factor); 4.4× smaller"
    )
    (row,) = (row for row in summary_rows(wide) if row[0].startswith("latency"))
    assert row[3] == "at least 6.36× faster (95 %: 6.36–91.81; too wide to quote a factor)"


def test_other_runtimes_and_int8_quote_no_factor_either():
    speed = {"dense_ms": 30.0, "slim_ms": 1.0, "speedup": 11.2, "ci95": (6.36, 91.81)}
    other = OtherRuntime(engine="torch", device="cpu", threads=1, batch=1, dtype="float32", runtime="torch", **speed)
    assert also_rows([other])[0][3] == "speedup at least 6.36× (95 %: 6.36–91.81; too wide to quote a factor)"
    wide = {"speedup": 11.2, "ci95": [6.36, 91.81], "pruned_speedup": 9.1, "pruned_ci95": [4.2, 80.0], "ms": 1.234}
    cells = int8_rows(changed(int8=[{**row, **wide} for row in EXAMPLE["int8"]]))[-1]
    assert cells[-3:] == (
        "1.23",
        "at least 6.36× (6.36–91.81; too wide to quote a factor)",
        "at least 4.20× (4.20–80.00; too wide to quote a factor)",
    )


def test_metrics_that_are_better_lower():
    quality = {"metric": "loss", "images": 50, "dense": 2.0, "higher_is_better": False}
    assert verdict_of(changed(quality={**quality, "final": 2.01})).state == "good"
    assert verdict_of(changed(quality={**quality, "final": 2.5})).state == "poor"
    assert verdict_of(changed(quality={**quality, "final": 1.5})).state == "good"


def test_the_table_begins_with_it_in_colour():
    table = report_table(changed(quality={"dense": 0.95, "final": 0.2}, latency=None), "net")
    assert str(table.title).startswith("[bold red]accuracy broken: 0.9500 to 0.2000")
