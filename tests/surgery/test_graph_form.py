"""The graph form: what the module's code can't follow, pruned, trained, saved, loaded and run at any batch size."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import BudgetError, ModelError, PlanError, StoreError
from structprune.records import Plan
from structprune.verify import masked
from tests.example_networks import LeNet, Tied, TwoInputs
from tests.forged_folders import forge
from tests.run.small_network import short_turns


class Stubborn(nn.Module):
    """Sizes and factors by numbers, unequal parts, dropout, a tied weight and a width in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.b, self.c = nn.Conv2d(5, 7, 1), nn.Conv2d(7, 7, 1)
        self.d = nn.Conv2d(14, 8, 1)
        self.d.bias = nn.Parameter(torch.randn(8))
        self.register_buffer("ramp", torch.arange(8.0), persistent=False)
        self.fc, self.head = nn.Linear(8 * 16, 10), nn.Linear(10, 4)

    def forward(self, x):
        x = F.dropout(self.bn(self.a(x)) * x.shape[1] ** -0.5, 0.5, self.training)
        x = torch.cat([self.b(x[:, :5]), self.c(x[:, 5:12])], 1)
        x = self.d(x * 14**-0.5) + self.ramp.view(8, 1, 1)
        return self.head(F.relu(self.fc(x.reshape(-1, 128))))


def _graph_form(model, x, macs=0.5):
    graph = sp.trace(model, x, form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": macs}, align=1)
    return graph, plan, sp.prune(model, plan)


@pytest.mark.parametrize("make", [Stubborn, lambda: LeNet("number")], ids=["stubborn", "view by a number"])
def test_the_graph_form_follows_where_the_module_can_t(make):
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(2, 3, 4, 4) if isinstance(model, Stubborn) else torch.randn(2, 1, 32, 32)
    module = sp.trace(model, x)
    graph, plan, slim = _graph_form(model, x)
    assert module.barriers
    assert not graph.barriers
    assert len(graph.groups) > len(module.groups)
    assert isinstance(slim, torch.fx.GraphModule)
    assert set(slim.state_dict()) == set(model.state_dict())
    gate = sp.verify(model, slim, plan, x)
    assert gate.passed, gate.reasons()
    assert gate.masked_vs_slim.batches == [1, 2]
    assert gate.onnx.batches == [1, 2]
    assert sum(p.numel() for p in slim.parameters()) == plan.params["slim"]


def test_it_trains_as_the_module_does():
    torch.manual_seed(0)
    model = Stubborn()
    x = torch.randn(4, 3, 4, 4)
    _, _, slim = _graph_form(model, x, 0.6)
    slim.train()
    before = slim.bn.running_mean.clone()
    torch.manual_seed(1)
    first = slim(x)
    assert not torch.equal(first, slim(x))  # dropout
    assert not torch.equal(before, slim.bn.running_mean)
    first.square().mean().backward()
    assert all(p.grad is not None for p in slim.parameters())
    slim.eval()
    assert torch.equal(slim(x), slim(x))


def test_it_is_saved_as_plain_data_and_loaded_without_the_class(tmp_path):
    torch.manual_seed(0)
    model = Stubborn().eval()
    x = torch.randn(2, 3, 4, 4)
    _, plan, slim = _graph_form(model, x)
    again = sp.load(sp.save(slim, plan, tmp_path / "slim"))
    assert torch.equal(again(x), slim(x))
    assert set(again.state_dict()) == set(slim.state_dict())
    assert Plan.from_json(plan.to_json()).program == plan.program
    replayed = sp.prune(model, Plan.from_json(plan.to_json()))
    assert torch.equal(replayed(x), slim(x))


def test_outputs_keep_their_structure_and_arguments_their_names():
    model = TwoInputs().eval()
    inputs = {"image": torch.randn(2, 3, 4, 4), "depth": torch.randn(2, 2, 4, 4)}
    _, plan, slim = _graph_form(model, inputs)
    made = slim(**inputs)
    assert set(made) == {"map", "pooled"}
    gate = sp.verify(model, slim, plan, inputs)
    assert gate.passed, gate.reasons()


def test_tied_parameters_stay_tied():
    model = Tied().eval()
    _, _, slim = _graph_form(model, torch.randn(1, 3, 4, 4))
    assert slim.c.weight is slim.b.weight
    assert slim.b.weight.shape[0] < 8


def _first(data, kind):
    return next(n for n in data["program"]["nodes"] if n["kind"] == kind)


ATTACKS = {
    "input": (lambda d: d["program"]["inputs"].append("z=print('run')"), "which is not a valid name"),
    "keyword": (lambda d: _first(d, "op")["kwargs"].update({"z=print('run'), y": 1}), "which is not a valid name"),
    "method": (lambda d: _first(d, "method").update(target="__reduce__"), "which no program needs"),
    "function": (lambda d: _first(d, "op").update(kind="torch", target="load"), "which no program needs"),
    "op": (lambda d: _first(d, "op").update(target="aten.from_file.default"), "not an op of a network"),
    "no op": (lambda d: _first(d, "op").update(target="aten.conv2d.no_such"), "can't be built"),
    "key": (lambda d: _first(d, "get").update(target="__class__.__init__"), "which the network does not have"),
    "type": (lambda d: _first(d, "op")["args"].append({"$torch": "load"}), "neither a type nor a layout"),
    "twice": (lambda d: d["program"]["nodes"].append(_first(d, "get")), "twice"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_program_may_not_name(tmp_path, attack):
    model = Stubborn().eval()
    _, plan, slim = _graph_form(model, torch.randn(2, 3, 4, 4))
    change, reason = ATTACKS[attack]
    data = json.loads(plan.to_json())
    change(data)
    with pytest.raises(PlanError, match=reason):
        sp.prune(model, Plan.from_json(json.dumps(data)))
    folder = sp.save(slim, plan, tmp_path / "slim")
    forge(folder, change)
    with pytest.raises(StoreError, match=reason):
        sp.load(folder)


class Batched(nn.Module):
    """A class token repeated for each sample, a step, and an input named as a parameter."""

    def __init__(self):
        super().__init__()
        self.scale, self.token = nn.Parameter(torch.rand(1) + 0.5), nn.Parameter(torch.randn(1, 1, 12))
        self.a, self.b, self.c, self.d = nn.Linear(6, 12), nn.Linear(12, 16), nn.Linear(8, 10), nn.Linear(10, 4)

    def forward(self, x, scale):
        x = torch.cat([self.token.repeat(x.shape[0], 1, 1), self.a(x) * self.scale], 1) * scale
        return self.d(self.c(self.b(x).relu()[..., ::2]).relu())


def test_numbers_that_follow_the_batch_steps_and_names():
    torch.manual_seed(0)
    model, inputs = Batched().eval(), (torch.randn(1, 3, 6), torch.tensor(2.0))
    _, plan, slim = _graph_form(model, inputs, 0.7)
    x = torch.randn(5, 3, 6)
    reference = masked(model, plan)
    assert torch.allclose(slim(x, torch.tensor(3.0)), reference(x, torch.tensor(3.0)), atol=1e-5)
    assert torch.allclose(slim(scale=torch.tensor(3.0), x=x), reference(x, torch.tensor(3.0)), atol=1e-5)


class Opaque(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.b(self.a(x).relu()).mean(0).repeat(int(str(len(x))) ** 4 % 7, 1)


def test_a_batch_that_can_t_be_followed_is_refused():
    graph = sp.trace(Opaque().eval(), torch.randn(1, 6), form="graph")
    with pytest.raises(ModelError, match="can't follow the batch here: repeat in forward"):
        sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)


def test_bad_forms_and_inputs_are_named():
    with pytest.raises(ModelError, match="form='slim': the slim network can have the form 'module' or 'graph'"):
        sp.trace(Stubborn(), torch.randn(1, 3, 4, 4), form="slim")

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, images):
            return self.b(self.a(images[0]))

    graph = sp.trace(Listed(), ([torch.randn(1, 3, 4, 4)],), form="graph")
    with pytest.raises(ModelError, match="takes tensors as arguments"):
        sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)


@pytest.mark.thorough
def test_a_run_takes_the_graph_form_where_the_budget_asks_for_it(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model: {name: test_vit_relpos, kwargs: {num_classes: 10, in_chans: 1, img_size: 32, depth: 2}}\n"
        "data: {source: digits, image_size: 32}\nprune: {budget: {macs: 0.06}, align: 8}\nbench: {seconds: 0.05}\n"
    )
    with pytest.raises(BudgetError):
        sp.run(recipe, tmp_path / "module", overrides=["prune.form=module"])
    with short_turns():
        report = sp.run(recipe, tmp_path / "auto")
    assert report["form"] == "graph"
    assert report["gate"]["passed"]
    assert "as a VisionTransformerRelPos it can't meet the budget" in report["notes"][-1]
    slim = sp.load(tmp_path / "auto")
    assert isinstance(slim, torch.fx.GraphModule)
