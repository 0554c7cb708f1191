"""CONTRIBUTING's code as it stands there: a rule of the package; an op, a criterion, an allocation from outside."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import structprune as sp
from structprune.criteria.registry import CRITERIA
from structprune.ops.record import OPS
from structprune.plan.allocations import ALLOCATIONS
from structprune.progress import Reporter
from structprune.recipe import check_recipe, read_recipe
from structprune.run import runner_of
from structprune.run.stage import STAGES
from structprune.store.artefacts import Artefacts
from structprune.suites.equality import assert_slim_equals_masked
from tests.example_networks import Chain

ROOT = Path(__file__).parents[2]
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL))
X = torch.randn(2, 3, 8, 8)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Imports a block as a module; registries and modules are put back at the end."""
    tables = (OPS, STAGES)
    before = [dict(table) for table in tables]
    folder, loaded = tmp_path_factory.mktemp("own"), {}

    def load(name):
        if name not in loaded:
            file = folder / name
            file.write_text(BLOCKS[name])
            spec = importlib.util.spec_from_file_location(file.stem, file)
            loaded[name] = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        return loaded[name]

    with CRITERIA.restored(), ALLOCATIONS.restored():
        yield load
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
    for name in loaded:
        del sys.modules[Path(name).stem]


@pytest.fixture
def own_op(imported):
    return imported("own_op.py")


def test_the_blocks_are_found():
    assert list(BLOCKS) == [
        "own_stage.py",
        "structprune/graph/rules/reduction.py",
        "tests/graph/test_rules.py",
        "own_op.py",
        "own_symbolic.py",
        "own_convolution.py",
        "chains.py",
        "noise_source.py",
        "counting_task.py",
        "shrinking_method.py",
        "own_choices.py",
        "own_recovery.py",
        "own_engine.py",
        "arrays_format.py",
    ]


@pytest.mark.parametrize("name", [name for name in BLOCKS if "/" in name])
def test_what_is_shown_of_the_package_is_in_it(name):
    assert BLOCKS[name] in (ROOT / name).read_text()


def test_without_its_rule_an_own_op_is_a_barrier(own_op, monkeypatch):
    monkeypatch.delitem(OPS, "own::scale_shift")
    graph = sp.trace(own_op.Net(), X)
    assert not graph.groups
    (barrier,) = graph.barriers
    assert (barrier.op, barrier.channels) == ("own::scale_shift", 8)
    assert barrier.reason == "no rule for own::scale_shift yet"


@pytest.mark.parametrize("form", ["module", "graph"])
def test_with_its_rule_it_is_pruned(own_op, form):
    (group,) = assert_slim_equals_masked(own_op.Net(), X, form=form).groups
    assert (group.name, group.units, group.exact) == ("enter", 8, True)
    assert {(s.key, s.dim, s.role) for s in group.slices} == {
        ("enter.weight", 0, "filter"),
        ("enter.bias", 0, "bias"),
        ("scale", 0, "norm"),
        ("shift", 0, "norm"),
        ("leave.weight", 1, "consumer"),
    }


def test_onnx_knows_it_once_its_meaning_is_given(own_op, imported):
    model = own_op.Net()
    graph = sp.trace(model, X)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    slim = sp.prune(model, plan)
    gate = sp.verify(model, slim, plan, X)
    (reason,) = gate.reasons()
    assert reason.startswith("onnx: ModelError: Net can't be exported to ONNX: ")
    assert "own::scale_shift" in reason
    imported("own_symbolic.py")
    try:
        gate = sp.verify(model, slim, plan, X)
    finally:
        torch.onnx.unregister_custom_op_symbolic("own::scale_shift", 17)
    assert gate.passed, gate.reasons()


def test_an_own_criterion_and_an_own_allocation(imported):
    imported("own_choices.py")
    model = Chain()
    graph = sp.trace(model, X)
    scores = sp.score(graph, "sum_of_squares")
    wanted = model.conv1.weight.detach().square().sum((1, 2, 3)).double()
    torch.testing.assert_close(torch.from_numpy(scores.values["conv1"]), wanted)
    plan = sp.plan(graph, scores, {"macs": 0.97}, allocation="last_first", align=1)
    kept = {name: len(group["kept"]) for name, group in plan.groups.items()}
    assert kept["conv1"] == 8  # the last group alone is enough
    assert kept["conv2"] < 6
    assert plan.macs["slim"] <= 0.97 * plan.macs["dense"]
    last_first = sys.modules["own_choices"].last_first
    assert sp.plan(graph, scores, {"macs": 0.97}, allocation=last_first, align=1) == plan


def test_a_recipe_names_both_in_their_file(imported, tmp_path):
    file = Path(imported("own_choices.py").__file__)
    (prune,) = re.findall(r"```yaml\n(prune: .*own_choices.*)\n```", (ROOT / "CONTRIBUTING.md").read_text())
    recipe, lines = file.with_name("recipe.yaml"), []
    model = "{name: test_resnet, kwargs: {in_chans: 1, num_classes: 10}}"
    recipe.write_text(f"model: {model}\ndata: {{source: digits, image_size: 32}}\n{prune}\n")
    plan = runner_of(read_recipe(recipe, tell=lines.append), Reporter(), Artefacts(tmp_path)).value("plan")
    assert (plan.criterion, plan.allocation) == ("sum_of_squares", "last_first")
    assert lines == [f"runs code of {file}, as the module own_choices"]


def test_an_own_stage(imported, tmp_path):
    recipe = check_recipe(
        {
            "model": {"name": "test_resnet", "kwargs": {"in_chans": 1, "num_classes": 10}},
            "data": {"source": "digits", "image_size": 32},
            "prune": {"budget": {"macs": 0.5}, "align": 1},
        }
    )
    before = runner_of(recipe, Reporter(), Artefacts(tmp_path)).value("slim")
    imported("own_stage.py")
    after = runner_of(recipe, Reporter(), Artefacts(tmp_path)).value("slim")
    assert max(float(p.detach().abs().max()) for p in before.parameters()) > 0.5
    for ours, theirs in zip(after.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs.clamp(-0.5, 0.5))
