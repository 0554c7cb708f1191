"""Plans as data: whatever is not a whole and sound plan is refused with the place; edits that make sense are not."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import PlanError
from structprune.plan_schema import PLAN_SCHEMA, PlanData

X = torch.randn(1, 3, 9, 9)


class Net(nn.Module):
    """With a grouped convolution, whose blocks keep channels of their own, and a LayerNorm, which takes a statistic."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 1, groups=2), nn.Conv2d(12, 8, 1)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.norm(self.c(self.b(self.a(x).relu()).relu()).mean((2, 3))))


def _planned(form):
    graph = sp.trace(Net().eval(), X, form=form)
    return sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.5}, align=1)


@pytest.fixture(scope="module", params=["module", "graph"])
def text(request):
    return _planned(request.param).to_json()


def test_the_schema_has_the_fields_of_a_plan():
    fields = {field.alias or name for name, field in PlanData.model_fields.items()}
    assert fields == {field.name for field in dataclasses.fields(sp.Plan)}


def test_the_published_schema_is_that_of_the_code():
    published = Path(__file__).parent.parent / "docs" / "plan.schema.json"
    assert json.loads(published.read_text(encoding="utf-8")) == PlanData.model_json_schema()


def test_a_plan_reads_back_and_so_does_one_of_the_version_before(text):
    plan = sp.Plan.from_json(text)
    assert plan.to_json() == text
    assert plan.schema == PLAN_SCHEMA
    assert sp.Plan.from_json(text.replace("structprune.plan/2", "structprune.plan/1")) == plan
    assert any(isinstance(kept, list) and isinstance(kept[0], list) for kept in plan.keep["b.weight"].values())
    assert plan.statistics


def test_what_was_predicted_and_measured_reads_back():
    plan = _planned("module")
    measured = {"goal": 2.0, "predicted": 2.1, "measured": 1.9, "ci95": [1.8, 2.0]}
    plan.latency = {"dense": 4.0, "slim": 2.0, "rounds": [measured], "correction": 1.1}
    assert sp.Plan.from_json(plan.to_json()).latency == plan.latency
    plan.latency = {"dense": 4, "slim": 2}  # as of a runtime that was never timed
    assert sp.Plan.from_json(plan.to_json()) == plan


def _set(*path, to):
    def edit(data):
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = to

    return edit


EDITS = [
    (_set("schema", to="structprune.plan/3"), r"its schema is 'structprune\.plan/3', this version reads .*plan/1 and"),
    (_set("schema", to=None), "its schema is None"),
    (lambda d: d.pop("macs"), "macs is missing"),
    (_set("kep", to={}), "unknown key 'kep': did you mean keep"),
    (_set("keep", to=[]), "'keep': .*dictionary"),
    (_set("keep", "a.weight", "0", to=[1.0]), r"'keep\.a\.weight\.0\.0': .*integer, not 1\.0"),
    (_set("keep", "a.weight", "0", to=[True]), r"'keep\.a\.weight\.0\.0': .*integer, not True"),
    (_set("keep", "a.weight", "0", to=["1"]), r"'keep\.a\.weight\.0\.0': .*integer, not '1'"),
    (_set("keep", "a.weight", "0", to=[-1, 2]), r"'keep\.a\.weight\.0\.0': .*greater than or equal to 0, not -1"),
    (_set("keep", "a.weight", "0", to=[2, 1]), r"'keep\.a\.weight\.0': indices must rise"),
    (_set("keep", "a.weight", "0", to=[1, 1]), r"'keep\.a\.weight\.0': indices must rise, and none may come twice"),
    (_set("keep", "a.weight", "0", to=[]), r"'keep\.a\.weight\.0': .*at least 1"),
    (
        _set("keep", "a.weight", "0", to=[0, 8]),
        r"impossible indices of axis 0 of a\.weight, whose shape is \[8, 3, 3, 3",
    ),
    (_set("keep", "a.weight", "0", to=[[0, 1]]), r"'keep\.a\.weight\.0': .*at least 2"),
    (_set("keep", "a.weight", "0", to=[[0, 1], [0, 1]]), r"'a\.weight' has 2 blocks on axis 0"),
    (_set("keep", "a.weight", "-1", to=[0]), r"'keep\.a\.weight\.-1.*: String should match"),
    (_set("keep", "a.weight", "4", to=[0]), r"'a\.weight' has no axis 4"),
    (_set("keep", "a.weight", to={}), r"'a\.weight' names no axis"),
    (_set("keep", "b.weight", "1", to=[[0, 1], [0]]), r"'keep\.b\.weight\.1': each block must keep the same number"),
    (_set("keep", "b.weight", "1", to=[[0], [0], [0], [0], [0]]), r"'b\.weight' has 5 blocks on axis 1"),
    (_set("keep", "b.weight", "0", to=[0, 1, 2, 7]), r"'b\.weight' keeps unequal numbers of its 2 blocks on axis 0"),
    (_set("shapes", "a.weight", to=[8, 3, 3.0, 3]), r"'shapes\.a\.weight\.2': .*integer, not 3\.0"),
    (_set("shapes", "a.weight", to=[2**62]), r"'shapes\.a\.weight\.0': .*less than"),
    (_set("shapes", "other", to=[8]), "'other' must be in both keep and shapes"),
    (lambda d: d["shapes"].pop("a.weight"), r"'a\.weight' must be in both keep and shapes"),
    (_set("groups", "a", "kept", to=[0, 8]), r"'groups\.a' keeps unit 8 of 8"),
    (_set("groups", "a", "units", to=0), r"'groups\.a\.units': .*greater than or equal to 1"),
    (_set("groups", "a", "more", to=0), "unknown key 'more'"),
    (_set("macs", "slim", to=-1), r"'macs\.slim'"),
    (_set("macs", "slim", to=1.5), r"'macs\.slim': .*integer, not 1\.5"),
    (_set("params", to={"dense": 1}), r"params\.slim is missing"),
    (_set("budget", "macs", to="half"), r"'budget\.macs"),
    (_set("statistics", 0, "call", to=-1), r"'statistics\.0\.call'"),
    (_set("statistics", 0, "reduces", to=1), r"'statistics\.0\.reduces': .*boolean, not 1"),
    (_set("statistics", 0, "keep", to={"0": {"x": [0]}}), r"'statistics\.0\.keep\.0\.x"),
    (_set("statistics", to={}), "'statistics': .*list"),
    (_set("constraints", "min", to=1), "unknown key 'min'"),
    (_set("constraints", "align", to=1.5), r"'constraints\.align"),
    (_set("constraints", "cuts", to=[{}]), r"constraints\.cuts\.0\.criterion is missing"),
    (_set("latency", to={"dense": 1.0}), r"latency\.slim is missing"),
    (_set("latency", to={"dense": "1", "slim": 1.0}), r"'latency\.dense': .*number, not '1'"),
    (_set("latency", to={"dense": 2.0, "slim": 1.0, "rounds": [{"goal": 2.0}]}), r"latency\.rounds\.0\.predicted is"),
    (_set("notes", to=[1]), r"'notes\.0': .*string, not 1"),
    (_set("program", to={"nodes": []}), "is missing"),
    (_set("program", to=[]), "'program'"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_edits_that_make_no_plan(text, edit, message):
    data = json.loads(text)
    edit(data)
    with pytest.raises(PlanError, match=message) as caught:
        sp.Plan.from_json(json.dumps(data))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", [None, b"{}", 5, "", "[]", "null", '"plan"', "{}", '{"schema": NaN}', "[" * 10_000])
def test_what_is_no_plan_at_all(text):
    with pytest.raises(PlanError, match=r"^not a plan: "):
        sp.Plan.from_json(text)


def test_a_plan_that_was_changed_in_python_is_checked_too():
    model = Net().eval()
    graph = sp.trace(model, X)
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.5}, align=1)
    plan.keep["a.weight"]["0"] = [0.0, 1.0]
    with pytest.raises(PlanError, match=r"'keep\.a\.weight\.0\.0': .*integer"):
        sp.prune(model, plan)
    with pytest.raises(PlanError, match=r"'keep\.a\.weight\.0\.0': .*integer"):
        plan.to_json()


def test_a_program_has_its_numbers_itself():
    data = json.loads(_planned("graph").to_json())
    data["attributes"] = {"a": {"out_channels": 4}}
    with pytest.raises(PlanError, match="'attributes' must be empty beside a program"):
        sp.Plan.from_json(json.dumps(data))


def test_errors_are_one_line_whatever_a_file_names():
    text = str(PlanError("a\nb\x1b[31m\0 é×" + "x" * 5000))
    assert text.startswith("a b\\x1b[31m\\x00 é×xxx")
    assert text.endswith("x…")
    assert len(text) == 2001


def test_a_cyclic_plan_is_refused():
    plan = _planned("module")
    plan.constraints["self"] = plan.constraints
    with pytest.raises(PlanError, match="not a sound plan"):
        plan.to_json()
