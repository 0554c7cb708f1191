"""What a run keeps of its groups: members, scores with the cut, and never more than is bounded."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.json_records import read_record
from structprune.report import Report, render_html
from structprune.report.group_details import (
    ALL_SCORES,
    FEWEST,
    LAYERS,
    SCORES,
    GroupDetails,
    Members,
    RunGroups,
    describe_members,
    sampled,
)
from structprune.report.group_picture import group_picture
from structprune.report.page_file import write_page

REPORT = Path(__file__).parent / "report.json"


class Residual(nn.Module):
    """`a` and `c` make the same channels, which `b` and `head` read; `b` feeds `c`."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.a(x)).relu()
        return self.head((x + self.c(self.b(x).relu())).mean((2, 3)))


@pytest.fixture(scope="module")
def cut():
    torch.manual_seed(0)
    graph = sp.trace(Residual().eval(), torch.zeros(1, 3, 6, 6))
    scores = sp.score(graph, "l1")
    return graph, scores, sp.plan(graph, scores, {"macs": 0.5}, align=1)


def test_members_and_neighbours_are_those_of_the_network(cut):
    a, b = describe_members(*cut).groups
    assert (a.name, a.made_by.layers, a.passes.layers) == ("a", ["a", "c"], ["norm"])
    assert sorted(a.read_by.layers) == ["b", "head"]
    assert (b.made_by.layers, b.read_by.layers, b.passes.layers) == (["b"], ["c"], [])
    assert (a.feeds, b.feeds) == (["b"], ["a"])


def test_scores_are_sorted_and_the_cut_is_the_plans(cut):
    graph, scores, plan = cut
    for group in describe_members(graph, scores, plan).groups:
        held, kept = group.scores, plan.groups[group.name]["kept"]
        assert held.values == sorted(held.values, reverse=True)
        assert (held.units, held.kept, held.ranks, held.exceptions) == (len(held.values), len(kept), None, [])
        assert held.values[held.kept - 1] == pytest.approx(scores.values[group.name][kept].min(), rel=1e-3)


def test_a_group_without_scores_says_why(cut):
    graph, scores, plan = cut
    values = {"a": scores.values["a"]}
    _, b = describe_members(graph, dataclasses.replace(scores, values=values, unscored={"b": "no norm"}), plan).groups
    assert (b.scores, b.unscored) == (None, "no norm")


def test_many_scores_are_a_sample_with_both_sides_of_the_cut():
    values = np.random.default_rng(0).permutation(np.arange(5000.0))
    held = sampled(values, values >= 3333, SCORES)
    assert len(held.values) <= SCORES
    assert held.kept == 5000 - 3333
    place = held.ranks.index(held.kept)
    assert held.values[place - 1 : place + 1] == [3333, 3332]
    assert (held.values[0], held.values[-1]) == (4999, 0)


def test_a_unit_that_stays_against_its_rank_is_an_exception():
    values, stays = np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False])
    assert sampled(values, stays, SCORES).exceptions == [1, 2]


def test_a_network_of_four_hundred_wide_groups_has_a_page_of_less_than_3_mb():
    """The most that can be kept of it, by the bounds."""
    count, long = 400, "stages.3.blocks.17.attention.projection"
    held = max(FEWEST, min(SCORES, ALL_SCORES // count))
    scores = sampled(np.random.default_rng(0).normal(size=4096), np.arange(4096) % 2 == 0, held)
    assert len(scores.values) <= held
    names = [f"{long}.{index}" for index in range(count)]
    layers = Members(layers=[f"{long}.layer{index}" for index in range(LAYERS)], more=99)
    kinds = {"made_by": layers, "passes": layers, "read_by": layers}
    near = {name: names[index + 1 : index + 20] for index, name in enumerate(names)}
    groups = [GroupDetails(name=n, **kinds, feeds=near[n], barriers=[0], scores=scores) for n in names]
    members = RunGroups(schema="structprune.groups/1", criterion="l1", rounds=1, held=held, groups=groups)
    data = json.loads(REPORT.read_text())
    data["groups"] = [{**data["groups"][0], "name": name} for name in names]
    data["layers"] = [{**data["layers"][0], "layer": name} for name in names]
    assert len(render_html(Report.model_validate(data), "large", None, members).encode()) < 3e6


def test_the_picture_has_only_groups_that_the_report_has_too(cut):
    report = read_record(REPORT, Report)
    assert group_picture(report, describe_members(*cut))["names"] == []


def test_a_page_without_members_has_no_groups_and_one_with_them_has(cut, tmp_path):
    graph, scores, plan = cut
    data = json.loads(REPORT.read_text())
    data["groups"] = [{**data["groups"][0], "name": name, "kept_channels": 3} for name in ("a", "b")]
    report = Report.model_validate(data)
    assert "<h2>Groups</h2>" not in write_page(report, tmp_path, "net").read_text()
    text = json.dumps(describe_members(graph, scores, plan).to_data())
    (tmp_path / "groups.json").write_text(text)
    assert "<h2>Groups</h2>" in write_page(report, tmp_path, "net").read_text()
