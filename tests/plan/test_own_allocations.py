"""Allocations of a user's own: any function, and what one that is registered says that it needs."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import BudgetError, RecipeError
from structprune.graph import Polynomial
from structprune.plan.allocations import ALLOCATIONS, Allocation, allocation
from structprune.progress import Reporter
from structprune.recipe import check_recipe
from structprune.run import runner_of
from structprune.run.stages import costs
from structprune.store.artefacts import Artefacts
from tests.run.small_network import RECIPE

X = torch.randn(1, 3, 8, 8)
NARROWEST = """
from structprune.plan.allocations import allocation

seen = []

@allocation("narrowest_of_all", "as narrow as may be", needs=[{needs}])
def narrowest(choices, scores, load):
    seen.append((load.cost, scores.sensitivity))
    return {{choice.group.name: int(choice.widths[0]) for choice in choices}}
"""


@pytest.fixture(autouse=True)
def _registry():
    with ALLOCATIONS.restored():
        yield
    sys.modules.pop("allocation_of_mine", None)


@pytest.fixture
def graph():
    return sp.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval(), X)


def widest(choices, scores, load):
    """As wide as may be, one group after the other."""
    widths = {choice.group.name: int(choice.widths[0]) for choice in choices}
    for choice in choices:
        fits = [int(w) for w in choice.widths if load({**widths, choice.group.name: int(w)}) <= 1]
        widths[choice.group.name] = max(fits)
    return widths


def test_any_function_is_an_allocation(graph):
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, allocation=widest, align=1)
    assert plan.allocation == "widest"
    assert plan.widths == {"0": 4}


def test_what_an_allocation_needs_is_there_or_asked_for(graph):
    scores, seen = sp.score(graph, "l1"), []

    @allocation("costly", "looks at costs", needs=["cost"])
    def costly(choices, scores, load):
        seen.append(load.cost)
        return widest(choices, scores, load)

    with pytest.raises(BudgetError, match=r"allocation costly needs costs: plan\(\.\.\., cost=structprune\.cost"):
        sp.plan(graph, scores, {"macs": 0.5}, allocation="costly", align=1)
    cost = SimpleNamespace(latency=Polynomial((1.0,), ((),)), dense_ms=1.0)
    plan = sp.plan(graph, scores, {"macs": 0.5}, allocation=costly, cost=cost, align=1)
    assert plan.allocation == "costly"
    assert seen == [cost]
    scores.values["0"][0] = -1.0
    sp.plan(graph, scores, {"macs": 0.5}, allocation=widest, align=1)
    for name in ("global", "knapsack"):
        with pytest.raises(BudgetError, match=f"allocation {name} weighs each score"):
            sp.plan(graph, scores, {"macs": 0.5}, allocation=name, align=1)


def test_names_and_needs_that_are_not_there(graph):
    with pytest.raises(RecipeError, match="unknown allocation 'knapsak': did you mean knapsack"):
        sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, allocation="knapsak")
    with pytest.raises(ValueError, match="needs 'scans', which is not one of scan, cost, positive"):
        allocation("mine", "", needs=["scans"])
    with pytest.raises(ValueError, match="an allocation named 'uniform' is registered already"):
        allocation("uniform", "")(widest)


def test_allocations_of_the_package_say_what_they_need():
    needs = {name: (set(entry.needs), set(entry.uses), entry.for_speed) for name, entry in ALLOCATIONS.items()}
    assert needs == {
        "global": ({"positive"}, set(), False),
        "knapsack": ({"positive"}, {"scan"}, True),
        "sensitivity": ({"scan"}, set(), True),
        "threshold": (set(), set(), False),
        "uniform": (set(), set(), False),
    }
    assert all(isinstance(entry, Allocation) and entry.description for entry in ALLOCATIONS.values())


def recipe_with(path, **changes):
    prune = {**RECIPE["prune"], "allocation": f"{path}:narrowest"}
    return check_recipe({**RECIPE, "train": None, "finetune": None, "prune": prune, **changes})


def test_a_recipe_names_a_file_and_the_run_makes_what_it_needs(tmp_path, monkeypatch):
    path = tmp_path / "allocation_of_mine.py"
    path.write_text(NARROWEST.format(needs="'scan', 'cost'"))
    recipe = recipe_with(path, data={**RECIPE["data"], "calibration": {"images": 64}})
    with pytest.raises(BudgetError, match="allocation narrowest_of_all needs costs, which are timed, and STRUCT"):
        runner_of(recipe, Reporter(), Artefacts(tmp_path)).value("plan")
    monkeypatch.setenv("STRUCTPRUNE_TIMING", "on")
    cost = SimpleNamespace(latency=Polynomial((1.0,), ((),)), dense_ms=1.0)
    monkeypatch.setattr(costs, "learn_cost", lambda *_, **__: cost)
    runner = runner_of(recipe, Reporter(), Artefacts(tmp_path))
    plan = runner.value("plan")
    seen = sys.modules["allocation_of_mine"].seen
    assert [found for found, _ in seen] == [cost, cost]  # in the rehearsal, and for the plan
    assert seen[1][1].losses.keys() == plan.groups.keys()
    assert plan.allocation == "narrowest_of_all"
    assert set(plan.widths.values()) == {2}


def test_a_plan_hangs_on_the_text_of_the_file(tmp_path):
    path, keys = tmp_path / "allocation_of_mine.py", []
    for needs in ("", "", " "):
        path.write_text(NARROWEST.format(needs=needs))
        with ALLOCATIONS.restored():
            keys.append(costs.machine(recipe_with(path)))
        sys.modules.pop("allocation_of_mine")
    assert keys[0] == keys[1] != keys[2]


def test_code_that_is_not_there(tmp_path):
    path = tmp_path / "allocation_of_mine.py"
    path.write_text("narrowest = 3\n")
    with pytest.raises(RecipeError, match=r"allocation: .*:narrowest is 3: name a function"):
        recipe_with(path)
    with pytest.raises(RecipeError, match="there is no file nothing"):
        recipe_with("nothing.py")
