"""Dense and slim pipelines side by side, on networks of a few channels without weights."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import structprune as sp
from structprune.models import CodeSpec, build_model
from structprune.suites import text_reading
from structprune.suites.text_reading import Comparison, Options, compare, draw
from structprune.text.pages import Page
from structprune.text.pipeline import Reading

TOOL = Path(__file__).parents[2] / "tools" / "text_reading.py"
TINY = (
    CodeSpec(source="structprune.networks.text_detector:TextDetector", kwargs={"width": 1 / 32}),
    CodeSpec(source="structprune.networks.text_recogniser:TextRecogniser", kwargs={"channels": 16, "hidden": 4}),
)
BOXES = np.array([[0, 0, 10, 10], [20, 0, 40, 10]], dtype=np.float32)


def comparison():
    page = Page(np.zeros((40, 60, 3), np.uint8), ("one", "two"), BOXES)
    dense = Reading(BOXES, ("one", "tvo"), 0.4, 0.2)
    slim = Reading(BOXES[:1], ("one",), 0.1, 0.1)
    return Comparison([page, page], [dense, dense], [slim, slim])


def test_shares_and_times():
    assert comparison().shares() == {"of dense": 0.5, "dense right": 0.5, "slim right": 0.5, "still right": 1}
    assert comparison().milliseconds() == {"dense": (400, 200), "slim": (100, 100)}
    assert comparison().speedup() == pytest.approx((3, 3, 3))
    assert comparison().speedup(lambda reading: reading.finding) == pytest.approx((4, 4, 4))


def test_what_only_the_slim_networks_read_right_is_not_still_right():
    page = Page(np.zeros((40, 60, 3), np.uint8), ("one", "two"), BOXES)
    dense, slim = Reading(BOXES, ("one", "tvo"), 0.4, 0.2), Reading(BOXES, ("ome", "two"), 0.1, 0.1)
    shares = Comparison([page], [dense], [slim]).shares()
    assert shares == {"of dense": 0, "dense right": 0.5, "slim right": 0.5, "still right": 0}


def test_the_picture_shows_a_page(tmp_path):
    draw(comparison(), 0, tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{folder}/nope", "{folder}"], "nope is not a folder: give that of a finished run"),
        (["{folder}", "{folder}/nope"], "nope is not a folder: give that of a finished run"),
        (["{folder}", "{folder}"], "holds no slim.safetensors: give the folder of a finished run"),
        (["{folder}", "{folder}", "--pages", "2", "--page", "2"], "--page 2: pages are counted from 0 to 1"),
    ],
)
def test_bad_input_is_one_line_and_code_2(options, message, tmp_path, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    with pytest.raises(SystemExit) as end:
        main([option.format(folder=tmp_path) for option in options])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.slow
def test_runs_are_compared_with_the_dense_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_reading, "DENSE", TINY)
    folders = []
    for name, spec, size in zip("ab", TINY, ((3, 64, 64), (1, 64, 64)), strict=True):
        model = build_model(spec, 0)
        graph = sp.trace(model, torch.zeros(2, *size))
        plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.7}, align=1)
        sp.save(sp.prune(model, plan), plan, tmp_path / name)
        folders.append(tmp_path / name)
    shares = []
    result = compare(*folders, Options(pages=2, size=64, width=64), shares.append)
    assert shares == [0.5, 1.0]
    assert len(result.pages) == len(result.dense) == len(result.slim) == 2
    assert all(reading.seconds > 0 for reading in (*result.dense, *result.slim))
