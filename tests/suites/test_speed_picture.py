"""The picture and the table in the README are those of docs/speed.md."""

import re
from pathlib import Path

from structprune.suites.speed.picture import draw, speedups_of

ROOT = Path(__file__).parents[2]
SPEEDUPS = speedups_of((ROOT / "docs" / "speed.md").read_text(encoding="utf-8"))


def test_speedups_are_read_off_a_table():
    page = "Words.\n\n| network | torch-pruning | with 8 | with 16 | structprune (95 %) |\n|---|---:|---:|---:|---:|\n"
    page += "| net | 1.65× (2.00) | 1.70× | 2.12× (2.22) | **2.19×** (2.18–2.20) |\n\n| network | other |\n"
    assert speedups_of(page) == {"net": {"torch-pruning": 1.65, "with 16": 2.12, "structprune (95 %)": 2.19}}


def test_the_readme_has_the_speedups_of_the_page():
    readme = speedups_of(
        (ROOT / "README.md").read_text(encoding="utf-8").replace("| structprune |", "| structprune (95 %) |")
    )
    assert len(SPEEDUPS) == 10
    assert readme == SPEEDUPS


def test_the_picture_in_the_readme_is_of_the_page(tmp_path):
    draw(SPEEDUPS, tmp_path / "speed.svg")

    def words(path):
        return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))

    expected = words(tmp_path / "speed.svg")
    assert {*SPEEDUPS, "2.19×", "torch-pruning"} <= set(expected)
    assert words(ROOT / "docs" / "pictures" / "speed.svg") == expected
