"""CONTRIBUTING's recovery as it stands there, and a function that a recipe names."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import RecipeError
from structprune.progress import Reporter
from structprune.recipe import check_recipe
from structprune.recover import RECOVERIES
from structprune.run import runner_of
from structprune.store.artefacts import Artefacts
from tests.run.small_network import RECIPE

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))
DATA = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(3))
OWN = """
def halve(mending, factor=0.5):
    layer = mending.slim.layers[0]
    mending.slim.write(layer.weight, mending.slim.state[layer.weight] * factor)
    return 1

def nothing(mending):
    return 0

def wrong(mending):
    return "much"

def fails(mending):
    return mending.slim.weights

def wider(mending):
    mending.slim.result[0].weight = mending.dense.result[0].weight
    return 1

halved = 3
"""


@pytest.fixture(autouse=True)
def _registry():
    with RECOVERIES.restored():
        yield
    for name in ("own_recovery", "recoveries_of_mine"):
        sys.modules.pop(name, None)


@pytest.fixture
def networks():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    graph = sp.trace(model, DATA[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    return model, sp.prune(model, plan), plan


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "recoveries_of_mine.py"
    path.write_text(OWN)
    return path


def test_a_recovery_takes_one_file(networks, tmp_path, monkeypatch):
    (tmp_path / "own_recovery.py").write_text(BLOCKS["own_recovery.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("own_recovery")
    model, slim, plan = networks
    done = sp.recover(model, slim, plan, DATA, ["logits"])
    assert done.layers == [1]
    wanted, before, after = (net(DATA).detach().mean(0) for net in (model, slim, done.model))
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)
    assert (before - wanted).abs().max() > 1e-3
    half = sp.recover(model, slim, plan, DATA, ["means", {"method": "logits", "share": 0.5}])
    assert half.layers[1] == 1
    data = {**RECIPE["data"], "calibration": {"images": 32}}
    recipe = check_recipe({**RECIPE, "data": data, "recover": [{"method": "logits", "share": 0.5}]})
    assert recipe.recover[0].share == 0.5
    with pytest.raises(RecipeError, match="put `means` before `logits`: `logits` already corrects the means"):
        sp.recover(model, slim, plan, DATA, ["logits", "means"])
    with pytest.raises(RecipeError, match="unknown recovery 'logit': did you mean logits"):
        sp.recover(model, slim, plan, DATA, ["logit"])
    with pytest.raises(RecipeError, match=r"recover\.0\.shar: unknown key 'shar': did you mean share"):
        check_recipe({**RECIPE, "data": data, "recover": [{"method": "logits", "shar": 0.5}]})


def test_a_function_of_a_file_is_a_recovery(networks, own):
    model, slim, plan = networks
    done = sp.recover(model, slim, plan, DATA, [{"method": f"{own}:halve", "kwargs": {"factor": 0.25}}])
    assert torch.equal(done.model[0].weight, 0.25 * slim[0].weight)
    assert done.layers == [1]
    done = sp.recover(model, slim, plan, DATA, [f"{own}:nothing"])
    assert done.notes[0].endswith(":nothing changed nothing: no layer of this network can take it")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "recover: .*:wrong returned 'much': return how many layers it changed"),
        ("fails", "recover: .*:fails failed: AttributeError: 'WritableNetwork' object has no attribute 'weights'"),
        ("wider", r"recover: 0\.weight is .*"),
        ("halved", "recover: .*:halved is 3: name a function"),
        ("third", "unknown name 'third'"),
    ],
)
def test_functions_that_do_not_recover(networks, own, name, message):
    model, slim, plan = networks
    with pytest.raises(RecipeError, match=message):
        sp.recover(model, slim, plan, DATA, [f"{own}:{name}"])


def test_a_run_recovers_by_it_and_hangs_on_its_text(own, tmp_path):
    def runner():
        data = {**RECIPE["data"], "calibration": {"images": 32}}
        changes = {"data": data, "train": None, "finetune": None, "recover": [f"{own}:halve"]}
        return runner_of(check_recipe({**RECIPE, **changes}), Reporter(), Artefacts(tmp_path / "store"))

    first, again = runner(), runner()
    (entry,) = first.value("recovery")
    assert (entry.layers, entry.option("kwargs")) == (1, {})
    before = first.key("recover").digest
    again.value("recovery")
    assert again.key("recover").digest == before
    own.write_text(OWN.replace("factor=0.5", "factor=0.75"))
    sys.modules.pop("recoveries_of_mine")
    other = runner()
    other.settle("check")
    assert other.key("recover").digest != before


def test_recoveries_of_the_package_say_what_they_need():
    needs = {name: (entry.spec().needs_images, bool(entry.spec.comes_first)) for name, entry in RECOVERIES.items()}
    others = dict.fromkeys(("batchnorm", "least_squares", "polish", "temperature"), (True, False))
    assert needs == {**others, "means": (True, True)}
    assert not RECOVERIES["means"].spec(source="batchnorm").needs_images
    assert all(entry.description for entry in RECOVERIES.values())
