"""Finished runs side by side: what their folders hold, on a page and in the terminal; folders that hold no run."""

import copy
import json

import pytest
import torch
from typer.testing import CliRunner

import structprune as sp
from structprune.cli import app
from structprune.compare import compare_runs, render_runs
from tests.run.small_network import Small
from tests.run_folders import BETTER, FAST, FASTER, GOOD, write_run


@pytest.fixture(scope="module")
def plans():
    """A plan, and the same with one unit fewer of its first group."""
    graph = sp.trace(Small(), torch.zeros(1, 1, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    other = copy.deepcopy(plan)
    del other.groups["one"]["kept"][0]
    return plan, other


@pytest.fixture(scope="module")
def folders(plans, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    first, second = ({"prune": {"criterion": name}} for name in ("l1", "l2"))
    return [
        write_run(place / "first", plan=plans[0], recipe=first, **FAST, **GOOD),
        write_run(place / "second", plan=plans[1], recipe=second, **FASTER, **BETTER),
    ]


def called(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)], terminal_width=160, color=False)


def test_widths_units_and_recipes_are_held_side_by_side(folders, plans):
    result = compare_runs(folders, folders[0].parent)
    kept = len(plans[0].groups["one"]["kept"])
    one, two = result.widths
    assert (one.name, one.shared, one.same) == ("one", [kept, kept - 1], False)
    assert (two.name, two.same) == ("two", True)
    assert [(entry.key, entry.values) for entry in result.recipe] == [("prune.criterion", ["l1", "l2"])]


def test_the_command_writes_a_page_and_a_record_and_show_reads_them(folders, tmp_path):
    done = called(*folders, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "second is faster: 3.00× against 2.00× as fast as dense, intervals apart" in " ".join(done.stdout.split())
    record = json.loads((tmp_path / "out" / "compare_runs.json").read_text())
    assert record == json.loads(called(*folders, "--out", tmp_path / "out", "--json").stdout)
    assert (tmp_path / "out" / record["runs"][0]["folder"]).resolve() == folders[0].resolve()
    page = tmp_path / "out" / "compare.html"
    first = page.read_text()
    page.unlink()
    again = CliRunner().invoke(app, ["show", str(tmp_path / "out"), "--html"])
    assert again.stdout.strip() == str(page)
    assert page.read_text() == first


def test_many_runs_have_a_line_each_and_are_counted(folders, tmp_path):
    others = [write_run(tmp_path / f"slow-{index}", latency__ci95=[0.9, 1.1], **GOOD) for index in range(5)]
    shown = " ".join(called(*folders, *others, "--out", tmp_path / "out").stdout.split())
    assert "second is the fastest of 7: 3.00× as fast as dense, its interval apart from all others" in shown
    assert "its interval apart from all others; second is the best of 7: accuracy 95.0 %" in shown
    assert "│ slow-4 │ 0.97× (0.90-1.10) │ 80.0 % (75.6-83.8) │" in shown


def test_it_lies_beside_the_first_run_by_itself(folders):
    assert called(*folders).exit_code == 0
    assert (folders[0].parent / "compare-first-second" / "compare.html").is_file()


def test_runs_of_one_name_have_more_of_their_paths(folders, tmp_path):
    other = write_run(tmp_path / "again" / "first", **FAST)
    names = [run.name for run in compare_runs([folders[0], other], tmp_path).runs]
    assert names == [f"{folders[0].parent.name}/first", "again/first"]


def test_what_does_not_compare_has_no_picture_and_the_reason_in_its_place(folders, tmp_path):
    other = write_run(tmp_path / "other", quality__metric="agreement", **FAST)
    page = render_runs(compare_runs([folders[0], other], tmp_path))
    assert "No picture: they have different metrics (accuracy and agreement)" in page
    assert 'data-plot="macs"' not in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["first"], "one run has nothing to be compared with: give the folders of two finished runs or more"),
        (["first", "first"], "are the same run: give each folder once"),
        (["first", "none"], "none is not there, where the folder of a finished run is wanted"),
        (["first", "first/recipe.yaml"], "recipe.yaml is a file, where the folder of a finished run is wanted"),
        (["first", "begun"], "begun is not a finished run: it has no report.json. Go on with it first"),
        (["first", "."], "it has no report.json. Give the folders in it: "),
        (["first", "second", "--resume"], "--resume is for a recipe, and finished runs are only read"),
        (["first", "second", "--set", "seed=1"], "--set is for a recipe"),
        (["first", "second", "--out", "first"], "holds something else already (report.json): give another folder"),
        (["first", "damaged"], "report.json is damaged"),
    ],
)
def test_what_is_no_run_is_one_line_and_writes_nothing(folders, words, message):
    place = folders[0].parent
    for name, file in (("begun", "recipe.yaml"), ("damaged", "report.json")):
        (place / name).mkdir(exist_ok=True)
        (place / name / file).write_text("{")
    paths = [place / word if index < 2 and word[0] != "-" else word for index, word in enumerate(words)]
    if "--out" in words:
        paths[-1] = place / words[-1]
    else:
        paths += ["--out", place / "nowhere"]
    done = called(*paths)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (place / "nowhere").exists()
