"""What callers give to public functions is checked: another type, NaN, a bool as a number get one line of our own."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError, PlanError, RecipeError, StructPruneError
from structprune.records import Scores, Sensitivity

X, IMAGES = torch.randn(1, 3, 8, 8), torch.randn(20, 3, 8, 8)


def _net():
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten()]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def made():
    model = _net()
    graph = sp.trace(model, X)
    scores = sp.score(graph, "l1")
    plan = sp.plan(graph, scores, budget={"macs": 0.5}, align=1)
    return {"model": model, "graph": graph, "scores": scores, "plan": plan, "slim": sp.prune(model, plan)}


ODD = [None, True, -1, 2.5, math.nan, "x", "", [], [[1]], {1: "x"}, object(), 10**400, b"x", torch.tensor(1.0)]
WRONG = {
    "graph": ODD,
    "scores": ODD,
    "criterion": ["x", *(x for x in ODD if x != "x")],
    "seed": [x for x in ODD if x is not True] + [True],
    "progress": ODD,
    "combine": [x for x in ODD if x is not None],
    "labels": [x for x in ODD if x is not None and not isinstance(x, torch.Tensor)],
    "ratios": [[0.0], [1.5], ["x"], [None], [math.nan], [True], 0.5, "0.5"],
    "budget": ODD + [{"macs": x} for x in ODD if not isinstance(x, float) or math.isnan(x)],
    "allocation": ODD,
    "min_channels": [x for x in ODD if x not in (1,)] + [True, 0],
    "max_ratio": [None, "x", True, math.nan, math.inf, 0, -0.5, 1.5, [0.5], 10**400],
    "align": [None, "automatic", True, 2.5, math.nan, 0, -8, [8], {"conv": 2.5}, {"convs": 8}, {1: 8}, np.float32(8)],
    "ignore": [None, 5, "0", [5], {"0": 1}, b"0", [None]],
    "sensitivity": [x for x in ODD if x is not None] + [Sensitivity({"0": {}}), Sensitivity({"0": {8: math.nan}})],
    "cost": [x for x in ODD if x is not None],
    "model": ODD,
    "slim": ODD,
    "plan": ODD,
    "data": ODD,
    "steps": ["means", None, 5, ["mean"], [5], {"method": "means"}],
    "example_inputs": [None, 5, "x", object()],
    "folder": [5, "", b"x", object()],
    "onnx": [5, "", b"x", object()],
    "path": [None, 5, "", b"x", object()],
    "opset": [None, "17", 17.5, True, -1, 10**400],
    "trained": [None, "yes", 1, 0.0, []],
    "form": [x for x in ODD if x is not None] + [None],
    "models": [*ODD, {"a": 5}],
    "batch": [None, True, 0, 2.5, "1"],
    "threads": [None, True, 0, 2.5, "1"],
    "seconds": [None, True, 0, -1, math.nan, math.inf, "1"],
    "rounds": [None, True, 0, 2.5],
    "runtime": [5, "torch"],
    "recipe": [None, 5, b"x", {}],
    "overrides": ["a=1", [5], None, {"a": 1}],
    "out": [5, b"x"],
}
FUNCTIONS = {
    "trace": (sp.trace, ["model", "example_inputs", "form"]),
    "score": (sp.score, ["graph", "criterion", "labels", "combine", "seed", "progress"]),
    "sensitivity": (sp.sensitivity, ["graph", "scores", "data", "ratios", "seed", "progress"]),
    "plan": (
        sp.plan,
        [
            "graph",
            "scores",
            "budget",
            "allocation",
            "min_channels",
            "max_ratio",
            "align",
            "ignore",
            "sensitivity",
            "cost",
        ],
    ),
    "prune": (sp.prune, ["model", "plan"]),
    "recover": (sp.recover, ["model", "slim", "plan", "data", "steps", "seed", "progress"]),
    "verify": (sp.verify, ["model", "slim", "plan", "trained", "folder", "onnx"]),
    "export_onnx": (sp.export_onnx, ["model", "example_inputs", "path", "opset"]),
    "benchmark": (sp.benchmark, ["models", "batch", "threads", "seconds", "rounds", "runtime", "progress"]),
    "run": (sp.run, ["recipe", "overrides", "out"]),
}
GIVEN = {
    "trace": {"model": "model", "example_inputs": X},
    "score": {"graph": "graph", "criterion": "l1"},
    "sensitivity": {"graph": "graph", "scores": "scores", "data": IMAGES},
    "plan": {"graph": "graph", "scores": "scores", "budget": {"macs": 0.5}},
    "plan again": {"graph": "graph", "scores": "scores", "budget": {"macs": 0.5}},
    "prune": {"model": "model", "plan": "plan"},
    "recover": {"model": "model", "slim": "slim", "plan": "plan", "data": IMAGES},
    "verify": {"model": "model", "slim": "slim", "plan": "plan", "example_inputs": X},
    "export_onnx": {"model": "slim", "example_inputs": X, "path": "never.onnx"},
    "benchmark": {"models": {"a": "a.onnx", "b": "b.onnx"}},
    "run": {"recipe": "none.yaml"},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_of_every_public_function(made, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, options = FUNCTIONS[name]
    given = {key: made.get(v, v) if isinstance(v, str) else v for key, v in GIVEN[name].items()}
    for option in options:
        for wrong in WRONG[option]:
            if (name, option) == ("sensitivity", "data") and wrong is None:
                continue  # random inputs
            with pytest.raises(StructPruneError) as caught:
                function(**{**given, option: wrong})
            assert "\n" not in str(caught.value), (option, wrong)
            assert len(str(caught.value)) < 700, (option, wrong)
    assert list(tmp_path.iterdir()) == []


def test_numpy_numbers_are_numbers(made):
    plan = sp.plan(
        made["graph"],
        made["scores"],
        budget={"macs": np.float32(0.5)},
        min_channels=np.int64(2),
        max_ratio=np.float64(0.75),
        align=np.int32(2),
    )
    assert plan.constraints == {"min_channels": 2, "max_ratio": 0.75, "align": 2, "ignore": []}
    assert sp.Plan.from_json(plan.to_json()).widths == plan.widths


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(16, np.nan), "NaN or infinite"),
        (np.full(16, np.inf), "NaN or infinite"),
        (np.zeros(16, complex), "not real numbers"),
        (np.array(["a"] * 16), "not real numbers"),
        (np.array([None] * 16), "not real numbers"),
        ([1.0, [2.0]], "not real numbers"),
        (np.zeros((16, 1)), r"shape \(16, 1\), and it has 16 units"),
        (np.zeros(15), r"shape \(15,\), and it has 16 units"),
        (None, "not real numbers"),
    ],
)
def test_scores_that_were_made_by_hand(made, values, message):
    scores = Scores("mine", {**made["scores"].values, "0": values})
    with pytest.raises(PlanError, match=message):
        sp.plan(made["graph"], scores, budget={"macs": 0.5}, align=1)


def test_scores_of_other_kinds_of_arrays_rank_as_their_numbers(made):
    graph, ranks = made["graph"], np.arange(16)
    others = {"2": made["scores"].values["2"]}
    kept = [
        sp.plan(graph, Scores("mine", {**others, "0": given}), budget={"macs": 0.5}, align=1).groups["0"]["kept"]
        for given in (ranks.astype(float), ranks.astype(np.uint8), torch.from_numpy(ranks), ranks.tolist())
    ]
    assert kept == [kept[0]] * 4
    assert kept[0] == list(range(16 - len(kept[0]), 16))


def test_scores_for_groups_that_are_not_there(made):
    with pytest.raises(PlanError, match="name group 'nine', which is not in this graph"):
        sp.plan(
            made["graph"], Scores("mine", {**made["scores"].values, "nine": np.ones(3)}), budget={"macs": 0.5}, align=1
        )


@pytest.mark.parametrize("allocation", ["global", "knapsack"])
def test_negative_scores_where_an_allocation_divides_by_their_sum(made, allocation):
    """The mean of a group's scores would turn its order round."""
    scores = Scores("mine", {name: values - values.max() for name, values in made["scores"].values.items()})
    with pytest.raises(BudgetError, match=f"allocation {allocation} weighs each score by the sum"):
        sp.plan(made["graph"], scores, budget={"macs": 0.5}, allocation=allocation, align=1)
    plan = sp.plan(made["graph"], scores, budget={"macs": 0.5}, align=1)
    assert plan.groups == sp.plan(made["graph"], made["scores"], budget={"macs": 0.5}, align=1).groups


def _raises(group):
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda group: None, r"gave None for group 0, which is not a tensor of scores"),
        (lambda group: torch.zeros(group.units, dtype=torch.complex64), "complex numbers have no order"),
        (lambda group: ["a"] * group.units, "is not a tensor of scores"),
        (lambda group: [None], "is not a tensor of scores"),
        (lambda group: torch.zeros(group.units + 1), r"gave shape \(17,\)"),
        (lambda group: torch.zeros(group.units, 1), r"gave shape \(16, 1\)"),
        (lambda group: torch.zeros(()), r"gave shape \(\)"),
        (lambda group: [], "gave no scores"),
        (lambda group: torch.full((group.units,), math.nan), "not finite"),
        (lambda group: torch.full((group.units,), math.inf), "not finite"),
        (lambda group: {"a": 1}, "is not a tensor of scores"),
        (_raises, "failed on group 0: KeyError: 'mine'"),
        (int, "failed on group 0: TypeError"),
    ],
)
def test_criteria_that_give_no_scores(made, function, message):
    with pytest.raises(StructPruneError, match=message):
        sp.score(made["graph"], function)


@pytest.mark.parametrize("gives", [None, [], {}, {"0": 16}, {"0": 1.5, "2": 8}, {"0": 99, "2": 8}, {"0": "8", "2": 8}])
def test_allocations_that_give_no_widths(made, gives):
    def mine(choices, scores, load):
        return gives

    with pytest.raises(PlanError, match="allocation mine gave"):
        sp.plan(made["graph"], made["scores"], budget={"macs": 0.5}, allocation=mine, align=1)


def test_a_scan_or_a_slim_network_of_another_graph(made):
    with pytest.raises(PlanError, match="sensitivity scan names group 'nine'"):
        sp.plan(
            made["graph"], made["scores"], budget={"macs": 0.5}, sensitivity=Sensitivity({"nine": {1: 0.0}}), align=1
        )
    with pytest.raises(RecipeError, match="in slim, and the plan makes it"):
        sp.recover(made["model"], made["model"], made["plan"], IMAGES)


@pytest.fixture(scope="module")
def classifier():
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return sp.trace(nn.Sequential(*layers).eval(), X)


@pytest.mark.parametrize("criterion", ["taylor", "apoz", "thinet"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (IMAGES[:, :1], "does not run on the calibration data"),
        (IMAGES.double(), "does not run on the calibration data"),
        (IMAGES[:, :, 0], "does not run on the calibration data"),
        ([{"foo": IMAGES}], "does not run on the calibration data"),
        ([IMAGES, IMAGES[:, :1]], "does not run on the calibration data"),
        (torch.full_like(IMAGES, math.nan), "NaN or infinite"),
        (IMAGES.to("meta"), "meta device"),
        (IMAGES[:0], "no calibration data"),
        (({}[0] for _ in range(1)), "can't be read: KeyError"),
    ],
)
def test_data_that_the_network_does_not_take(classifier, criterion, data, message):
    with pytest.raises(RecipeError, match=message) as caught:
        sp.score(classifier, criterion, _again(data), widths={"0": 4})
    assert "\n" not in str(caught.value)


def _again(data):
    """A generator that raises does so once: a new one for each test."""
    return ({}[0] for _ in range(1)) if hasattr(data, "gi_frame") else data


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(20), torch.full((20,), 5), torch.full((20,), -1), torch.zeros(20, 1, dtype=torch.long),
     torch.zeros(20, dtype=torch.bool), torch.zeros(19, dtype=torch.long), torch.tensor(1)],
)  # fmt: skip
def test_labels_that_are_no_classes(classifier, labels):
    with pytest.raises(RecipeError, match="labels"):
        sp.score(classifier, "taylor", IMAGES, labels=labels)


def test_labels_of_any_whole_dtype_are_class_numbers(classifier):
    classes = torch.arange(20) % 5
    found = [
        sp.score(classifier, "taylor", IMAGES, labels=classes.to(dtype)).values["0"]
        for dtype in (torch.int64, torch.int32, torch.uint8)
    ]
    assert all(np.array_equal(values, found[0]) for values in found)
