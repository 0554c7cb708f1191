"""Plans that were edited by hand: applied where they fit the model, refused by name where they do not."""

import json

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import PlanError, StructPruneError

X = torch.randn(2, 3, 9, 9)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.b, self.head = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1)
        self.sizes, self.fused = [3, 8], True

    def forward(self, x):
        return self.head(self.b(self.norm(self.a(x)).relu()))


@pytest.fixture(scope="module")
def model():
    return Pair().eval()


@pytest.fixture(scope="module")
def data(model):
    graph = sp.trace(model, X[:1])
    return json.loads(sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.6}, align=1).to_json())


def _edited(data, edit):
    changed = json.loads(json.dumps(data))
    edit(changed)
    return sp.Plan.from_json(json.dumps(changed))


def _blocks(d):
    d["keep"]["head.weight"], d["shapes"]["head.weight"] = {"1": [[0, 1], [0, 1]]}, [4, 8, 1, 1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["attributes"].update({"a": {"weight": 5}}), r"sets a\.weight to 5"),
        (lambda d: d["attributes"].update({"a": {"forward": 5}}), r"sets a\.forward to 5"),
        (lambda d: d["attributes"].update({"a": {"training": False}}), r"sets a\.training"),
        (lambda d: d["attributes"].update({"a": {"__class__": 5}}), r"sets a\.__class__"),
        (lambda d: d["attributes"].update({"a": {"_buffers": {}}}), r"sets a\._buffers"),
        (lambda d: d["attributes"].update({"a": {"padding_mode": "circular"}}), r"sets a\.padding_mode"),
        (lambda d: d["attributes"]["a"].update(stride=[1, 0]), r"sets a\.stride to \[1, 0\]"),
        (lambda d: d["attributes"]["norm"].update(affine=False), r"sets norm\.affine to False"),
        (lambda d: d["attributes"]["a"].update({"weight.ndim": 3}), r"sets a\.weight\.ndim, which Pair does not have"),
        (lambda d: d["attributes"].update({"": {"a.out_channels": 3}}), r"sets a\.out_channels, which Pair does not"),
        (lambda d: d["attributes"].update({"a": {"nothing": 5}}), r"sets a\.nothing, which Pair does not have"),
        (lambda d: d["attributes"].update({"z": {"in_channels": 5}}), r"sets z\.in_channels, which Pair does not have"),
        (lambda d: d["attributes"]["a"].update(out_channels=9), r"sets a\.out_channels to 9, and it is 8"),
        (lambda d: d["attributes"]["a"].update(out_channels=True), r"sets a\.out_channels to True, and it is 8"),
        (lambda d: d["attributes"]["a"].update(out_channels=4.0), r"sets a\.out_channels to 4\.0"),
        (lambda d: d["attributes"]["a"].update(out_channels=-4), r"sets a\.out_channels to -4"),
        (lambda d: d["attributes"].update({"": {"sizes": [3]}}), r"sets sizes to \[3\], and it is \[3, 8\]"),
        (lambda d: d["attributes"].update({"": {"sizes": 8}}), r"sets sizes to 8"),
        (lambda d: d["attributes"].update({"": {"fused": 0}}), r"sets fused to 0, and it is True"),
        (lambda d: d["attributes"]["a"].update(out_channels=2), "leaves a with out_channels=2 and a weight of shape"),
        (lambda d: d["attributes"].pop("a"), "leaves a with out_channels=8 and a weight of shape"),
        (lambda d: d["keep"].pop("norm.running_var") and d["shapes"].pop("norm.running_var"), "leaves norm with num_f"),
        (_blocks, "2 blocks, but it has 1 groups"),
    ],
)
def test_plans_that_do_not_fit_are_refused_before_anything_is_made(model, data, edit, message):
    plan = _edited(data, edit)
    with pytest.raises(PlanError, match=message):
        sp.prune(model, plan)


def test_a_sensible_edit_is_applied_and_passes_the_gate(model, data):
    """Another choice of as many channels, of the input's first convolution, everywhere that they are coupled."""

    def edit(d):
        width, half = len(d["groups"]["a"]["kept"]), len(d["groups"]["a"]["kept"]) // 2
        kept = [*range(half), *range(4, 4 + half)]
        assert len(kept) == width
        d["groups"]["a"]["kept"] = kept
        for key in ("a.weight", "a.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
            d["keep"][key]["0"] = kept
        d["keep"]["b.weight"]["1"] = [list(range(half))] * 2

    plan = _edited(data, edit)
    slim = sp.prune(model, plan)
    gate = sp.verify(model, slim, plan, X)
    assert gate.passed, gate.reasons()
    assert torch.equal(slim.a.weight, model.a.weight[plan.groups["a"]["kept"]])


def test_arguments_of_other_types(model, data):
    plan = _edited(data, lambda d: None)
    with pytest.raises(PlanError, match="the plan is a dict"):
        sp.prune(model, data)
    with pytest.raises(StructPruneError, match="the model is a str"):
        sp.prune("model", plan)
