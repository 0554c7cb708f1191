"""The page of a recipe by structprune and by torch-pruning."""

import json

import pytest
from typer.testing import CliRunner

from structprune.cli import app
from structprune.compare import Comparison, render_comparison
from tests.peer_comparisons import OURS, THEIRS, comparison

FAILED = {"network": "torch-pruning-16", "tool": "torch-pruning", "align": 16, "error": "prune: IndexError: index 7"}


def test_the_verdict_is_first_and_widths_are_beside_each_other():
    page = render_comparison(comparison(OURS, THEIRS))
    assert (
        '<p class="verdict">structprune is faster: 3.00× against 2.00× as fast as dense, intervals apart; '
        "accuracy is not told apart: structprune 95.0 % and torch-pruning 94.0 %, intervals overlap.</p>" in page
    )
    assert '<a href="structprune/report.html">' in page
    plots = json.loads(page.split('id="plots">')[1].split("</script>")[0])
    assert plots["widths"]["columns"] == [[16], [8], [6]]
    assert plots["speed"]["front"] == [0]


def test_a_tool_that_failed_is_said():
    page = render_comparison(comparison(OURS, FAILED))
    assert "torch-pruning-16 could not be made; there is nothing to compare with" in page
    assert "No torch-pruning-16: prune: IndexError: index 7" in page


@pytest.mark.parametrize("left_out", ["images", "widths"])
def test_records_of_before_have_a_page(left_out):
    result = comparison(OURS, THEIRS)
    data = {key: value for key, value in result.to_data().items() if key != left_out}
    page = render_comparison(Comparison.model_validate(data))
    assert ("no interval is known" in page) == (left_out == "images")
    assert ("<h2>Widths</h2>" in page) == (left_out == "images")


def test_show_writes_it_again(tmp_path):
    (tmp_path / "compare.json").write_text(json.dumps(comparison(OURS, THEIRS).to_data()))
    done = CliRunner().invoke(app, ["show", str(tmp_path), "--html"])
    assert done.stdout.strip() == str(tmp_path / "compare.html")
    assert "structprune is faster" in (tmp_path / "compare.html").read_text()
