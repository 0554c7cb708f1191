"""What is left of a tiny network without training, by plan and recovery, and how rows are shown and written."""

import pytest
import torch
from rich.console import Console
from torch.utils.data import TensorDataset

from structprune.calibration import Batch
from structprune.ops import Inputs
from structprune.quality_judge import Judge, Quality
from structprune.suites.fidelity.report import cell, draw, line, table
from structprune.suites.fidelity.rows import THEIRS, Left, Row, Settings, our_rows, peer_rows
from structprune.suites.fidelity.subjects import Subject
from structprune.tasks.building import make_task
from tests.example_networks import Chain

IMAGES = torch.randn(32, 3, 10, 10, generator=torch.Generator().manual_seed(0))
ROWS = [
    Row("l1", "uniform", 2.0, 2.1, {"means": Left(Quality("agreement", 0.75, True, 8, labelled=False), 1.5)}),
    Row(THEIRS, "uniform", 1.5, 1.6, {"as cut": Left(Quality("accuracy", 0.5, True, 8))}),
]


@pytest.fixture
def subject():
    torch.manual_seed(0)
    model = Chain().eval()
    model.num_classes = 5  # torch-pruning's graph leaves a layer of so many outputs
    judge = Judge(make_task(), TensorDataset(IMAGES), model, labelled=False)
    return Subject(model, IMAGES[:1], [Batch(Inputs.of(IMAGES))], judge, seed=0)


def test_each_plan_has_a_row_and_each_recovery_a_result(subject):
    settings = Settings(["l1", "thinet"], ["uniform", "sensitivity"], ["as cut", "means"], [1.3])
    rows = list(our_rows(subject, settings))
    assert [(row.criterion, row.allocation) for row in rows] == [
        *[("l1", "uniform"), ("l1", "sensitivity")],
        *[("thinet", "uniform"), ("thinet", "sensitivity")],
    ]
    for row in rows:
        assert row.surgery == "drop"
        assert row.cut >= 1.3
        assert list(row.results) == ["as cut", "means"]
        assert row.results["means"].quality.kl >= 0


def test_merging_stands_beside_dropping_at_equal_widths(subject):
    settings = Settings(["l1"], ["uniform"], ["as cut"], [1.3], surgeries=("drop", "merge"))
    dropped, merged = our_rows(subject, settings)
    assert (dropped.surgery, merged.surgery) == ("drop", "merge")
    assert dropped.cut == merged.cut
    assert dropped.results["as cut"].quality.kl != merged.results["as cut"].quality.kl
    assert "l1, uniform, merge, " in line(merged)


def test_torch_pruning_is_measured_at_the_nearest_ratio(subject):
    (row,) = peer_rows(subject, Settings([], [], [], [1.5]))
    assert (row.criterion, row.target) == (THEIRS, 1.5)
    assert 1 < row.cut < 3
    assert list(row.to_data()["results"]["as cut"]) == ["agreement", "kl"]


def test_rows_are_shown_and_written(tmp_path):
    quality = Quality("agreement", 0.75, True, 8, likeness={"kl": 0.125}, labelled=False)
    assert cell(Left(quality)) == "0.750 / 0.12"
    assert line(ROWS[1]) == f"{THEIRS}, uniform, 1.60×: as cut 0.500"
    assert ROWS[0].to_data()["results"] == {"means": {"agreement": 0.75, "seconds": 1.5}}
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(ROWS, "digits", ["as cut", "means"]))
    text = capture.get()
    assert text.index(THEIRS) < text.index("l1"), "small cuts come first"
    pytest.importorskip("matplotlib")
    draw(ROWS, ["as cut", "means"], tmp_path / "left.png")
    assert (tmp_path / "left.png").read_bytes().startswith(b"\x89PNG")
