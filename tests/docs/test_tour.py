"""The notebook is whole: a valid file, run from top to bottom, with what it printed. CI runs it anew (`.ci/check`)."""

from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]


def test_the_notebook_was_run_from_top_to_bottom():
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert kinds
    assert "error" not in kinds
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs) == 1
    assert "jupyter execute docs/tour.ipynb" in (ROOT / ".ci" / "check").read_text()
