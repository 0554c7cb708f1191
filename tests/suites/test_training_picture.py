"""The picture in docs/training.md is of the page's tables."""

import re
from pathlib import Path

from structprune.suites.training_picture import Point, draw, point_of, rows_of

ROOT = Path(__file__).parents[2]


def test_rows_and_points_are_read_off_a_table():
    page = "# Page\n\n## One\n\nWords.\n\n| a | b |\n|---|---:|\n| x | **0.9804 ± 0.0027** |\n\n"
    page += "## Two\n\n| c |\n|---|\n| y |\n"
    assert rows_of(page, "One") == [["x", "**0.9804 ± 0.0027**"]]
    assert rows_of(page, "Two") == [["y"]]
    assert point_of("**0.9804 ± 0.0027**") == Point(0.9804, 0.0027)


def test_the_picture_is_of_the_page(tmp_path):
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    draw(page, tmp_path / "training.svg")

    def drawn(path):
        return re.findall(r"<(?:text|path|use)[^>]*>[^<]*", path.read_text(encoding="utf-8"))

    words = (tmp_path / "training.svg").read_text(encoding="utf-8")
    assert all(word in words for word in ("rigl", "dsd", "LeNet-300-100", "in rounds", "slimmed in passes"))
    assert drawn(ROOT / "docs" / "pictures" / "training.svg") == drawn(tmp_path / "training.svg")
