"""The page of a recipe by structprune and by torch-pruning."""

import json

import pytest
from typer.testing import CliRunner

from structprune.cli import app
from structprune.compare import Comparison, render_comparison
from structprune.runtimes import environment


def row(network, tool, speedup, final, **more):
    return {
        "network": network,
        "tool": tool,
        "macs": int(1e6 / speedup),
        "cut": speedup,
        "params": 1000,
        "gate": {"passed": True, "max_rel": 0.0},
        "quality": {"pruned": 0.5, "final": final},
        "seconds": 1.0,
        "peak_bytes": 2**20,
        "ms": 1 / speedup,
        "speedup": speedup,
        "ci95": [speedup - 0.02, speedup + 0.02],
        "efficiency": 1.0,
        "timing": [],
        **more,
    }


FAILED = {"network": "torch-pruning-16", "tool": "torch-pruning", "align": 16, "error": "prune: IndexError: index 7"}
OURS, THEIRS = row("structprune", "structprune", 3.0, 0.95), row("torch-pruning", "torch-pruning", 2.0, 0.94)


def comparison(*rows, **more):
    data = {
        "schema": "structprune.compare/1",
        "model": "net",
        "criterion": "l1",
        "allocation": "uniform",
        "budget": {"macs": 0.5},
        "kept_by": "l1",
        "runtime": "onnxruntime",
        "metric": "accuracy",
        "images": 400,
        "dense": {"macs": 10**6, "quality": 0.96},
        "rows": list(rows),
        "widths": [{"name": "one", "channels": 16, "kept": {"structprune": 8, "torch-pruning": 6}}],
        "notes": [],
        "environment": environment().to_data(),
    }
    return Comparison.model_validate({**data, **more})


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
