"""CONTRIBUTING's engine as it stands there: one file, no edit elsewhere; recipes and timings know it."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import RecipeError
from structprune.recipe import check_recipe
from structprune.runtimes import Runtime
from structprune.runtimes.engines import ENGINES, Engine, add_engine

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))
RECIPE = {"model": {"name": "resnet10t"}, "data": {"source": "digits"}, "prune": {"budget": {"macs": 0.5}}}


@pytest.fixture
def _imported(tmp_path, monkeypatch):
    before = dict(ENGINES)
    (tmp_path / "own_engine.py").write_text(BLOCKS["own_engine.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("own_engine")
    yield
    sys.modules.pop("own_engine")
    ENGINES.clear()
    ENGINES.update(before)


@pytest.mark.usefixtures("_imported")
def test_an_engine_takes_one_file(tmp_path):
    x = torch.randn(1, 3, 8, 8)
    nets = [nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 3)).eval() for width in (8, 4)]
    files = [sp.export_onnx(net, x, tmp_path / f"{i}.onnx") for i, net in enumerate(nets)]
    runtime = Runtime(engine="reference", batch=2)
    opened = runtime.open(files[0])
    (found,) = opened.run()
    (given,) = opened.feed.values()
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), nets[0](torch.from_numpy(given)), atol=1e-5)
    assert found.shape == (2, 4, 4, 4)
    timed = sp.benchmark({"dense": files[0], "slim": files[1]}, runtime=runtime, seconds=0.1)
    assert timed.runtime.endswith(" reference")
    assert timed.batch == 2
    assert min(timed.ms.values()) > 0
    recipe = check_recipe({**RECIPE, "bench": {"also": ["reference"]}})
    assert [other.engine for other in recipe.also] == ["reference"]
    assert check_recipe({**RECIPE, "runtime": {"engine": "reference"}}).runtime.runtime().files
    with pytest.raises(RecipeError, match="reference runs networks in float32, not in int8"):
        Runtime(engine="reference", dtype="int8")
    with pytest.raises(ValueError, match="an engine named 'reference' is registered already"):
        add_engine(ENGINES["reference"])


def test_unknown_engines_are_named():
    with pytest.raises(RecipeError, match="unknown engine 'reference'"):
        Runtime(engine="reference")
    assert all(isinstance(engine, Engine) and engine.name == name for name, engine in ENGINES.items())
