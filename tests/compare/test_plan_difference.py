"""Two plans side by side."""

import copy
import json

import pytest
import torch
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.compare import difference_of
from tests.example_networks import Chain, pruned, randomise


@pytest.fixture(scope="module")
def plans():
    """A plan, and the same with another unit of its first group, in place of one that it keeps, and one fewer."""
    plan, _ = pruned(randomise(Chain()), torch.randn(1, 3, 10, 10))
    other = copy.deepcopy(plan)
    name, group = next(iter(plan.groups.items()))
    left_out = next(unit for unit in range(group["units"]) if unit not in group["kept"])
    other.groups[name] = {**group, "kept": sorted([*group["kept"][2:], left_out])}
    return plan, other


def test_a_plan_differs_from_another_where_it_keeps_other_units(plans):
    plan, other = plans
    difference = difference_of(plan, other)
    assert not difference.same
    first, *rest = difference.groups
    kept = len(plan.groups[first.name]["kept"])
    assert (first.first, first.second, first.shared) == (kept, kept - 1, kept - 2)
    assert all(group.first == group.second == group.shared for group in rest)
    assert difference_of(plan, plan).same


def test_groups_of_one_plan_alone_are_told(plans):
    plan, other = copy.deepcopy(plans)
    name = next(iter(plan.groups))
    del other.groups[name]
    difference = difference_of(plan, other)
    assert (difference.groups[0].second, difference.groups[0].shared, difference.same) == (None, 0, False)


def test_the_command_takes_files_and_folders_of_runs(plans, tmp_path):
    for name, plan in zip("ab", plans, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(sp.Plan.to_json(plan))
    words = ["diff", str(tmp_path / "a"), str(tmp_path / "b" / "plan.json")]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(result.stdout) == json.loads(json.dumps(difference_of(*plans).to_data()))
    shown = CliRunner().invoke(app, words).stdout
    assert "groups keep the same units by both" in " ".join(shown.split())
    none = CliRunner().invoke(app, ["diff", str(tmp_path / "a"), str(tmp_path / "none")])
    assert none.exit_code == 2
