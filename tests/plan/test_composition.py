"""Two cuts as one: what is composed is what two cuts make, and what the dense network, masked by it, computes."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import structprune as sp
from structprune.errors import BudgetError, PlanError
from structprune.ops import Inputs, outputs
from structprune.plan import realise
from structprune.report.summaries import describe_groups
from structprune.suites.random_networks import Case
from structprune.verify import TOLERANCE, Comparison, batches_of, compare_finest, compare_random, masked
from structprune.verify.running import refusals, size_of
from tests.example_networks import Chain, Tied, randomise

X = torch.randn(2, 3, 10, 10)


def _planned(model, x, seed, form="module"):
    """The graph, and a random plan of a part of it."""
    graph = sp.trace(model, x, form=form)
    rng = np.random.default_rng(seed)
    scores = sp.score(graph, lambda group: torch.from_numpy(rng.random(group.units)))
    share = float(rng.uniform(0.4, 0.8))
    while True:
        try:
            measure = "macs" if graph.macs() else "params"
            return graph, sp.plan(graph, scores, {measure: share}, max_ratio=1.0, align=1)
        except BudgetError:
            share += 0.3 * (1 - share)
            if share > 0.999:
                pytest.skip("nothing is left to cut")


def _cut(model, x, forms, seed=0):
    """The plan of some cuts after each other on the dense network, the network that they leave, and the first graph."""
    slim, plans, graphs = model.eval(), [], []
    for i, form in enumerate(forms):
        graph, plan = _planned(slim, x, seed + i, form)
        slim = sp.prune(slim, plan)
        graphs.append(graph)
        plans.append(plan)
    composed = plans[0]
    for plan in plans[1:]:
        composed = composed.then(plan)
    return composed, slim, graphs[0], plans


def assert_composed(model, x, forms=("module", "module"), seed=0):
    composed, slim, graph, plans = _cut(model, x, forms, seed)
    at_once = sp.prune(model, composed)
    assert isinstance(at_once, fx.GraphModule) == isinstance(slim, fx.GraphModule)
    left, right = at_once.state_dict(), slim.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    given = Inputs.of(x)
    with torch.no_grad():
        for a, b in zip(outputs(given.call(at_once)), outputs(given.call(slim)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    refused = refusals(slim, batches_of(model, given), given)
    batches = [batch for batch in batches_of(model, given) if size_of(batch) not in refused]
    own, other = Comparison(tolerance=TOLERANCE["float64"]), Comparison(tolerance=TOLERANCE["float64"])
    compare_finest(own, masked(model, composed), slim, batches, dense=model)
    compare_random(other, model, slim, composed, batches)
    assert (own.state, other.state) == ("passed", "passed"), (own.detail, other.detail)
    if composed.groups and len(set(forms)) == 1:  # what the dense network's own graph makes of these units
        kept = {name: np.array(group["kept"]) for name, group in composed.groups.items()}
        alone = realise(graph, kept)
        for name in ("keep", "shapes", "macs", "macs_by_operator", "params"):
            assert getattr(alone, name) == getattr(composed, name), name
        assert forms[0] == "graph" or alone.attributes == composed.attributes
    assert sp.Plan.from_json(composed.to_json()) == composed
    return composed, slim, plans


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.bn, self.head = nn.BatchNorm2d(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.bn(self.b(F.relu(self.a(x))))).mean((2, 3)))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, groups=2, padding=1)
        self.norm, self.head = nn.GroupNorm(2, 24), nn.Conv2d(24, 4, 1)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.grouped(self.stem(x)))))


class Attention(nn.Module):
    """Heads and their widths, LayerNorm."""

    def __init__(self):
        super().__init__()
        self.enter, self.norm, self.qkv = nn.Linear(10, 16), nn.LayerNorm(16), nn.Linear(16, 3 * 4 * 8)
        self.proj, self.heads, self.width, self.scale = nn.Linear(32, 16), 4, 8, 8**-0.5

    def forward(self, x):
        x = self.enter(x.flatten(1, 2))
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, self.heads * self.width)) + x


class Tokens(nn.Module):
    """An embedding whose weight is the head's too, and an LSTM."""

    def __init__(self):
        super().__init__()
        self.emb, self.lstm = nn.Embedding(30, 16), nn.LSTM(16, 12, batch_first=True, bidirectional=True)
        self.norm, self.out, self.head = nn.LayerNorm(24), nn.Linear(24, 16), nn.Linear(16, 30, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, x):
        return self.head(self.out(self.norm(self.lstm(self.emb(x))[0])).relu())


class Pieces(nn.Module):
    """Concatenated, and cut into slices by a number in the code."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(16, 12, 1)
        self.low, self.high, self.mean = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 3, 1)
        self.offset = torch.linspace(0, 1, 12)[:, None, None]  # not a buffer: a constant of a graph form

    def forward(self, x):
        x = F.relu(self.c(torch.cat([self.a(x), self.b(x)], 1))) + self.offset
        return self.mean(self.low(x[:, :6]) + self.high(x[:, 6:]))


NETWORKS = {
    "chain": (Chain, X),
    "residual": (Residual, X),
    "grouped, balanced": (Grouped, X),
    "attention": (Attention, X),
    "lstm, embedding, tied": (Tokens, torch.randint(0, 30, (2, 7))),
    "tied": (Tied, X),
    "pieces": (Pieces, X),
}
FORMS = [
    *[("module", "module"), ("module", "module", "module"), ("graph", "graph")],
    *[("module", "graph"), ("graph", "module")],
]


@pytest.mark.parametrize("forms", FORMS, ids="-".join)
@pytest.mark.parametrize("name", NETWORKS)
def test_two_cuts_are_one_cut_of_the_dense_network(name, forms):
    make, x = NETWORKS[name]
    composed, slim, plans = assert_composed(randomise(make()), x, forms)
    assert composed.groups or name == "pieces"  # its constant is a buffer of a graph form, which frees a group
    assert composed.macs == {"dense": plans[0].macs["dense"], "slim": plans[-1].macs["slim"]}
    assert composed.params["slim"] == sum(parameter.numel() for parameter in slim.parameters())
    assert len(composed.constraints["cuts"]) == len(forms)


@pytest.mark.parametrize("seed", [seed for seed in range(16) if seed != 2])  # 2: whole blocks and channels within
def test_of_random_networks(seed):
    forms = [("module", "module"), ("graph", "graph"), ("module", "module", "module")][seed % 3]
    model, x = Case.random(seed).build()
    assert_composed(model, x, forms, seed)


def test_which_of_three_cuts_are_composed_first_makes_no_difference():
    *_, (first, second, third) = _cut(randomise(Residual()), X, ["module"] * 3)
    assert first.then(second).then(third) == first.then(second.then(third))


@pytest.mark.parametrize("form", ["module", "graph"])
def test_the_gate_passes_and_files_are_read_back(form, tmp_path):
    model = randomise(Pieces())
    composed, slim, *_ = _cut(model, X, [form, form])
    gate = sp.verify(model, slim, composed, X)
    assert gate.passed, gate.reasons()
    assert gate.onnx.passed
    sp.save(slim, composed, tmp_path)
    again = sp.load(tmp_path, model)
    assert torch.equal(again(X), slim(X))
    assert torch.equal(sp.load(tmp_path)(X), slim(X))
    assert sp.Plan.read(tmp_path / "plan.json") == composed


def test_a_wrong_composition_is_caught():
    model = randomise(Residual())
    _, slim, _, plans = _cut(model, X, ["module", "module"])
    name, group = next((n, g) for n, g in plans[0].groups.items() if len(g["kept"]) < g["units"])
    other = dataclasses.replace(plans[0], keep={**plans[0].keep})
    shifted = [unit for unit in range(group["units"]) if unit not in group["kept"]]
    kept = sorted([*shifted, *group["kept"]][: len(group["kept"])])
    other.keep[f"{name}.weight"] = {**other.keep[f"{name}.weight"], "0": kept}
    assert not sp.verify(model, slim, other.then(plans[1]), X).passed


def test_budgets_are_said_of_the_dense_network():
    model = randomise(Residual())
    graph = sp.trace(model, X[:1])
    first = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6, "channels": 40}, align=1)
    graph = sp.trace(sp.prune(model, first), X[:1])
    second = sp.plan(graph, sp.score(graph, "l2"), {"macs": 0.5}, align=1)
    composed = first.then(second)
    assert composed.budget == {"macs": int(0.5 * first.macs["slim"]), "channels": 40}
    assert (composed.criterion, composed.allocation) == ("l1 then l2", "uniform")
    assert [cut["budget"] for cut in composed.constraints["cuts"]] == [first.budget, second.budget]
    assert composed.latency is None
    fast = [dataclasses.replace(p, latency=ms, budget={"speedup": x}) for p, ms, x in (
        (first, {"dense": 4.0, "slim": 2.5}, 1.5), (second, {"dense": 2.6, "slim": 2.0}, 1.25))]  # fmt: skip
    composed = fast[0].then(fast[1])
    assert composed.budget == {"speedup": 1.875}
    assert composed.latency == {"dense": 4.0, "slim": 2.0}
    fast[1].latency["dense"] = 26.0  # another runtime's
    assert fast[0].then(fast[1]).latency is None


def test_a_factor_that_can_go_no_further_is_missed_in_the_second_plan():
    """With one head left, the second graph names the widths otherwise."""
    model = Attention().eval()
    graph = sp.trace(model, X)
    kept = {group.name: np.arange(group.units) for group in graph.groups}
    heads = next(group.name for group in graph.groups if group.units == 4)
    first = realise(graph, {**kept, heads: np.array([2])})
    slim = sp.prune(model, first)
    graph = sp.trace(slim, X)
    assert heads not in {group.name for group in graph.groups if group.units == 4}
    _, second = _planned(slim, X, 1)
    composed = first.then(second)
    assert composed.groups[heads] == {"units": 4, "kept": [2]}
    alone = realise(sp.trace(model, X), {name: np.array(group["kept"]) for name, group in composed.groups.items()})
    assert alone.keep == composed.keep
    assert sp.verify(model, sp.prune(slim, second), composed, X).passed


def test_what_the_plans_do_not_tell_is_left_out_and_said():
    model = randomise(Residual())
    composed, _, _, (first, second) = _cut(model, X, ["module", "module"])
    cut = next(name for name, group in second.groups.items() if len(group["kept"]) < group["units"])
    renamed = dataclasses.replace(second, groups={("z" if n == cut else n): g for n, g in second.groups.items()})
    odd = first.then(renamed)
    assert odd.groups == {}
    assert "names no groups" in odd.notes[-1]
    assert odd.keep == composed.keep


def test_a_plan_that_cuts_nothing_changes_nothing():
    model = randomise(Residual())
    graph = sp.trace(model, X)
    none, some = (sp.plan(graph, sp.score(graph, "l1"), {"macs": share}, align=1) for share in (1.0, 0.5))
    assert (none.then(some).keep, none.then(some).groups) == (some.keep, some.groups)
    graph = sp.trace(sp.prune(model, some), X)
    none = sp.plan(graph, sp.score(graph, "l1"), {"macs": 1.0}, align=1)
    assert (some.then(none).keep, some.then(none).groups) == (some.keep, some.groups)


def test_recovery_and_reports_take_a_composed_plan():
    model = randomise(Residual())
    composed, slim, graph, _ = _cut(model, X, ["module", "module"])
    done = sp.recover(model, slim, composed, torch.randn(32, 3, 10, 10), ["means", "least_squares"]).model
    assert sp.verify(model, done, composed, X, trained=True).passed
    told = describe_groups(graph, composed)
    assert {entry.name: entry.kept_channels for entry in told} == composed.widths
    assert describe_groups(graph, dataclasses.replace(composed, groups={})) == told


def test_what_can_t_be_composed_is_refused_in_one_line():
    model = randomise(Chain())
    _, first = _planned(model, X, 0)
    _, second = _planned(sp.prune(model, first), X, 1)
    with pytest.raises(PlanError, match=r"can't be composed: the first leaves .* parameters, and the second starts"):
        first.then(first)
    _, larger = _planned(sp.prune(model, first), torch.randn(1, 3, 20, 20), 1)
    with pytest.raises(PlanError, match=r"MACs, and the second starts from .* inputs of the same size"):
        first.then(larger)
    shapes = {key: [size + 1 for size in shape] for key, shape in second.shapes.items()}
    with pytest.raises(PlanError, match=r"leaves '.*' of shape .* and the second was made for"):
        first.then(dataclasses.replace(second, shapes=shapes))
    statistic = {"call": 0, "op": "softmax", "module": "", "reduces": False, "keep": {"0": {"1": [0, 3]}}}
    beyond = {**statistic, "keep": {"0": {"1": [2]}}}
    with pytest.raises(PlanError, match=r"keeps \[2\] of 2 places that the first leaves"):
        dataclasses.replace(first, statistics=[statistic]).then(dataclasses.replace(second, statistics=[beyond]))
    with pytest.raises(PlanError, match="then: 'second' is not a plan"):
        first.then("second")
    _, graphs = _planned(model, X, 0, "graph")
    assert second.attributes
    with pytest.raises(PlanError, match="plan both in one form"):
        graphs.then(dataclasses.replace(second))


def test_whole_blocks_then_channels_within_are_refused():
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.grouped, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.head(self.grouped(self.stem(x)))

    base = {"macs": {"dense": 9, "slim": 9}, "params": {"dense": 9, "slim": 9}, "criterion": "", "allocation": ""}
    base |= {"macs_by_operator": {"dense": {}, "slim": {}}, "budget": {}, "constraints": {}, "groups": {}}
    first = sp.Plan(
        **base, keep={"grouped.weight": {"0": [0, 1, 4, 5]}}, shapes={"grouped.weight": [8, 2, 1, 1]},
        attributes={"grouped": {"groups": 2}},
    )  # fmt: skip
    second = sp.Plan(
        **base, keep={"grouped.weight": {"1": [[0], [1]]}}, shapes={"grouped.weight": [4, 2, 1, 1]}, attributes={}
    )
    with pytest.raises(PlanError, match=r"whole blocks of 'grouped.weight' and the other channels within"):
        first.then(second)
    one = dataclasses.replace(first, keep={"grouped.weight": {"1": [[0], [1], [0], [1]]}}, attributes={})
    then = sp.Plan(
        **base, keep={"grouped.weight": {"0": [2, 3]}}, shapes={"grouped.weight": [8, 1, 1, 1]},
        attributes={"grouped": {"groups": 1}},
    )  # fmt: skip
    assert one.then(then).keep == {"grouped.weight": {"0": [2, 3], "1": [1]}}  # of the one block that stays
