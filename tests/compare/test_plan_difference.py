"""Two plans side by side."""

import copy
import dataclasses
import json

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.compare import difference_of, difference_table
from tests.example_networks import Chain, pruned, randomise


def shown(difference):
    """The table's text, as wide as it likes."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(difference_table(difference, ("a", "b")))
    return " ".join(capture.get().split())


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
    text = CliRunner().invoke(app, words).stdout
    assert "groups keep the same units by both" in " ".join(text.split())
    assert "units that go" not in text


def test_a_wrong_path_is_one_line(plans, tmp_path):
    (tmp_path / "plan.json").write_text(plans[0].to_json())
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none", "none is not a file or folder: give a plan.json or the folder of a run"),
        ("empty", "empty has no plan.json: no run has planned there"),
    ):
        result = CliRunner().invoke(app, ["diff", str(tmp_path), str(tmp_path / name)])
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


@pytest.fixture(scope="module")
def merging(plans):
    """The first plan, with a merge in its first group: of what goes there, all or all but one, into one unit."""

    def make(target, leaves_one=False):
        plan = copy.deepcopy(plans[0])
        name, group = next(iter(plan.groups.items()))
        place = group["kept"][target]
        into = [unit if unit in group["kept"] else place for unit in range(group["units"])]
        if leaves_one:
            into[into.index(place, place == 0)] = -1
        return dataclasses.replace(plan, merges={"groups": {name: into}, "axes": {}, "norms": []})

    return make


def test_a_plan_that_merges_differs_from_one_that_drops(plans, merging):
    group = next(iter(plans[0].groups.values()))
    goes = group["units"] - len(group["kept"])
    difference = difference_of(merging(0), plans[0])
    first, *rest = difference.groups
    assert (first.first_merged, first.second_merged, first.same, difference.same) == (goes, 0, False, False)
    assert all(group.same and group.first_merged == 0 for group in rest)
    assert difference_of(merging(0), merging(0)).same
    text = shown(difference)
    assert f"merges {goes} / drops {goes}" in text
    assert f"{len(rest)} of {len(rest) + 1} groups keep the same units by both, and merge the others alike" in text


def test_plans_that_merge_other_clusters_differ(merging, plans):
    difference = difference_of(merging(0), merging(1))
    goes = difference.groups[0].first_merged
    assert not difference.same
    assert f"merges {goes} / merges {goes} (other clusters)" in shown(difference)
    partly = difference_of(plans[0], merging(-1, leaves_one=True))
    assert partly.groups[0].second_merged == goes - 1
    assert f"drops {goes} / merges {goes - 1}, drops 1" in shown(partly)


def test_plans_without_groups_differ_where_parameters_keep_other_indices(plans):
    first, second = (dataclasses.replace(copy.deepcopy(plans[0]), groups={}) for _ in range(2))
    assert difference_of(first, second).same
    axes = next(iter(second.keep.values()))
    axis = next(iter(axes))
    axes[axis] = axes[axis][1:]
    difference = difference_of(first, second)
    assert not difference.same
    assert (
        "0 of 0 groups keep the same units by both; yet the plans keep different indices of some parameters"
        in shown(difference)
    )
