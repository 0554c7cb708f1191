"""What is left of a tiny network without training, by plan and recovery, and how rows are shown and written."""

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

from structprune.calibration import Batch
from structprune.ops import Inputs
from structprune.quality_judge import Judge, Quality
from structprune.suites.fidelity.report import cell, draw, line, table
from structprune.suites.fidelity.rows import THEIRS, Left, Row, Settings, all_rows, medians, our_rows, peer_rows
from structprune.suites.fidelity.subjects import Subject, warped
from structprune.tasks.building import make_task
from tests.example_networks import Chain

IMAGES = torch.randn(32, 3, 10, 10, generator=torch.Generator().manual_seed(0))
ROWS = [
    Row("l1", "uniform", 2.0, 2.1, {"means": Left(Quality("agreement", 0.75, True, 8, labelled=False), 1.5)}),
    Row(THEIRS, "uniform", 1.5, 1.6, {"as cut": Left(Quality("accuracy", 0.5, True, 8))}),
]


class Wide(nn.Module):
    """Three linear layers, of which the second makes what is between two layers."""

    num_classes = 5

    def __init__(self):
        super().__init__()
        self.first, self.wide, self.last = nn.Linear(10, 8), nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x):
        return self.last(torch.relu(self.wide(torch.relu(self.first(x)))))


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


def test_where_torch_pruning_fails_its_row_says_so(subject, monkeypatch):
    def search(*_):
        raise IndexError("index 12 is out of bounds")

    monkeypatch.setattr("structprune.compare.peer.search_ratio", search)
    (row,) = peer_rows(subject, Settings([], [], [], [1.5]))
    assert (row.criterion, row.cut, row.results) == (f"{THEIRS}: IndexError", 1.5, {})


def test_inner_widths_are_divided_and_torch_pruning_comes_as_near_in_all_widths_and_in_these():
    torch.manual_seed(0)
    model = Wide().eval()
    judge = Judge(make_task(), TensorDataset(IMAGES.flatten(1)[:, :10]), model, labelled=False)
    x = IMAGES.flatten(1)[:, :10]
    inner = Subject(model, x[:1], [Batch(Inputs.of(x))], judge, seed=1, inner=("wide*",))
    settings = Settings(["l1"], ["uniform"], ["as cut", "attention as cut"], [2.0])
    (ours,) = our_rows(inner, settings)
    assert (ours.allocation, ours.target, ours.seed) == ("inner widths ÷ 2", 2.0, 1)
    assert ours.cut == (10 * 8 + 8 * 16 + 16 * 5) / (10 * 8 + 8 * 8 + 8 * 5)
    again, everywhere, theirs = all_rows([inner], settings, with_peer=True)
    assert again.cut == ours.cut
    assert len(list(all_rows([inner, inner], settings, with_peer=False))) == 2
    assert (everywhere.allocation, theirs.allocation) == ("uniform", "inner widths ÷ 2")
    assert theirs.cut == ours.cut


def test_the_table_has_medians_over_seeds():
    rows = [
        Row("l1", "uniform", 2.0, 2.0 + value, {"means": Left(Quality("accuracy", value, True, 8))}, seed=seed)
        for seed, value in enumerate((0.1, 0.9, 0.3))
    ]
    (row, other) = medians([*rows, ROWS[1]])
    assert (row.cut, row.results["means"].quality.value) == (2.3, 0.3)
    assert other == ROWS[1]


def test_warped_copies_are_alike_each_time_and_not_among_each_other():
    images = TensorDataset(torch.randn(5, 1, 8, 8), torch.arange(5))
    pixels, classes = warped(images, 3).tensors
    assert torch.equal(pixels, warped(images, 3).tensors[0])
    assert pixels.shape == (15, 1, 8, 8)
    assert classes.tolist() == list(range(5)) * 3
    assert not torch.equal(pixels[:5], pixels[5:10])


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
