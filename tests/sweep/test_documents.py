"""The sweeps that the repository has, and those that docs/sweeps.md shows."""

import re
from pathlib import Path

import pytest

from structprune.sweep import read_sweep

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "recipes" / "studies").glob("*.yaml"))
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_can_be_run(path):
    sweep = read_sweep(path)
    assert len(sweep.spec.seeds) >= 5  # fewer say little
    assert len(sweep.runs) == len(sweep.arms) * len(sweep.spec.seeds)


def test_the_page_shows_the_study_as_it_is():
    assert (ROOT / "recipes" / "studies" / "criteria_digits.yaml").read_text().endswith(BLOCKS[0])


def test_the_arms_of_the_page_are_those_that_it_names(tmp_path):
    (tmp_path / "sweep.yaml").write_text(BLOCKS[1])
    names = [arm.name for arm in read_sweep(tmp_path / "sweep.yaml").arms]
    assert (len(names), names[:2], names[-2:]) == (13, ["l1+labels+4x", "l1+labels+16x"], ["scratch+16x", "dense-long"])
