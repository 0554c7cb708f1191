"""What the page opens with: three numbers, each with its interval and how many it is of, and asked against reached."""

import json
from pathlib import Path

import pytest

from structprune.report import Report
from structprune.report.headline import headline, is_share, share_interval, targets

DATA = json.loads((Path(__file__).parent / "report.json").read_text())


def report(**parts):
    """The stored report with other parts: a dictionary is laid over the one that is there."""
    data = json.loads(json.dumps(DATA))
    for name, part in parts.items():
        data[name] = {**data[name], **part} if isinstance(part, dict) and isinstance(data[name], dict) else part
    return Report.model_validate(data)


LABELLED = {"metric": "accuracy", "images": 360, "dense": 1.0, "pruned": 0.5, "recovered": None, "final": 1.0}
UNLABELLED = {"kl": None, "random_weights": None}
TIMED = {"speedup": 3.3, "ci95": [3.2, 3.4], "dense_ms": 3.3, "slim_ms": 1.0, "turns": 44}


def labelled(**quality):
    return report(search=None, budget={}, latency=TIMED, quality={**LABELLED, **UNLABELLED, **quality})


def test_the_three_numbers_have_their_intervals_and_counts():
    speed, size, quality = headline(labelled())
    assert (speed.value, speed.label, speed.state) == ("3.30×", "faster", "good")
    assert speed.details[0] == "95 %: 3.20 to 3.40, n\u00a0=\u00a044 turns"
    assert size.value == f"{DATA['params']['cut']:.2f}×"
    assert "counted exactly" in size.details[1]
    assert (quality.value, quality.label, quality.state) == ("100.0 %", "accuracy, kept: dense 100.0 %", "good")
    assert quality.details == ("360 of 360 right, 95 %: 98.9 to 100.0 %",)


@pytest.mark.parametrize(
    ("final", "value", "word", "state"), [(0.9, "90.0 %", "lost", "poor"), (0.25, "25.0 %", "broken", "broken")]
)
def test_quality_that_is_lost_is_called_lost_and_what_is_large_is_what_is_left(final, value, word, state):
    figure = headline(labelled(final=final))[2]
    assert (figure.value, figure.label, figure.state) == (value, f"accuracy, {word}: dense 100.0 %", state)
    assert figure.details[0].startswith(f"{round(360 * final)} of 360 right, 95 %: ")


def test_agreement_is_with_the_dense_network():
    figure = headline(labelled(metric="agreement", final=0.95, random_weights=False))[2]
    assert (figure.value, figure.label, figure.state) == ("95.0 %", "agreement with dense", "good")
    assert figure.details == ("342 of 360 alike, 95 %: 92.2 to 96.8 %",)


def test_random_weights_have_no_quality():
    figure = headline(labelled(random_weights=True))[2]
    assert (figure.label, figure.state) == ("quality unknown", "open")


def test_what_is_no_share_of_samples_has_no_interval():
    figure = headline(labelled(metric="psnr", dense=31.5, final=31.4))[2]
    assert (figure.value, figure.label) == ("31.4000", "psnr, kept: dense 31.5000")
    assert "no interval is known" in figure.details[1]
    assert not is_share(labelled(final=0.1234).quality, 0.1234)  # of 360 samples none is a whole number


def test_the_interval_is_wilsons():
    """As Brown, Cai and DasGupta (2001) write it: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    n, p, z = 1000, 0.984, 1.959963984540054
    centre, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    expected = [(centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1)]
    assert share_interval(p, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("latency", "label", "state"),
    [
        ({"speedup": 1.1, "ci95": [0.9, 1.3]}, "as fast: not shown to be faster", "poor"),
        ({"speedup": 0.8, "ci95": [0.7, 0.9]}, "as fast: slower than dense", "poor"),
    ],
)
def test_what_is_not_faster_is_not_called_faster(latency, label, state):
    figure = headline(report(search=None, latency={**TIMED, **latency}))[0]
    assert (figure.label, figure.state) == (label, state)


def test_an_interval_that_is_too_wide_quotes_the_least_and_no_factor():
    figure = headline(report(search=None, latency={**TIMED, "speedup": 11.2, "ci95": [6.36, 91.81]}))[0]
    assert (figure.value, figure.label) == ("at least 6.36×", "faster")
    assert figure.details[0].startswith("95 %: 6.36 to 91.81; too wide to quote a factor, n")


def test_a_network_that_was_not_timed():
    assert headline(report(latency=None))[0].label == "not timed"


@pytest.mark.parametrize(
    ("budget", "row"),
    [
        ({"macs": 0.5}, ("MACs", "at most 0.5 of dense", "0.4000 of dense", "met")),
        ({"macs": 300}, ("MACs", "at most 300", "400", "missed")),
        ({"params": 0.1}, ("parameters", "at most 0.1 of dense", "0.2500 of dense", "missed")),
        ({"speedup": 3}, ("speedup", "at least 3×", "3.30× (95 %: 3.20 to 3.40)", "met")),
        ({"speedup": 3.5}, ("speedup", "at least 3.5×", "3.30× (95 %: 3.20 to 3.40)", "within its interval")),
        ({"speedup": 4}, ("speedup", "at least 4×", "3.30× (95 %: 3.20 to 3.40)", "missed")),
        ({"latency_ms": 0.5}, ("latency", "at most 0.5 ms", "1 ms", "missed")),
    ],
)
def test_asked_against_reached(budget, row):
    amounts = {"macs": {"dense": 1000, "slim": 400}, "params": {"dense": 1000, "slim": 250}}
    data = report(search=None, latency=TIMED, **amounts).to_data()
    assert targets(Report.model_validate({**data, "budget": budget})) == [row]


@pytest.mark.parametrize(("asked_for", "outcome"), [(3, "met"), (3.2, "within its interval"), (4, "missed")])
def test_a_speed_too_wide_to_quote_meets_what_its_least_meets(asked_for, outcome):
    (row,) = targets(report(search=None, latency={**TIMED, "ci95": [3.1, 3.5]}, budget={"speedup": asked_for}))[-1:]
    assert row.reached == "at least 3.10× (95 %: 3.10 to 3.50; too wide to quote a factor)"
    assert row.outcome == outcome


def test_bounds_of_quality_are_those_on_held_out_data():
    (bound,) = DATA["search"]["bounds"]
    (row,) = targets(report())
    assert row.reached == f"{bound['held_out']:.4f} on held-out data"
    assert row.outcome == ("met" if bound["met"] else "missed")
