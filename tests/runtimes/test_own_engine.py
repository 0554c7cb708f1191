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
from structprune.runtimes import ENGINES, Runtime, time_layers
from structprune.runtimes.engine import Engine

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))
RECIPE = {"model": {"name": "resnet10t"}, "data": {"source": "digits"}, "prune": {"budget": {"macs": 0.5}}}


@pytest.fixture
def _imported(tmp_path, monkeypatch):
    (tmp_path / "own_engine.py").write_text(BLOCKS["own_engine.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    with ENGINES.restored():
        __import__("own_engine")
        yield
    sys.modules.pop("own_engine")


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
        ENGINES.add(ENGINES["reference"])


@pytest.mark.thorough
@pytest.mark.usefixtures("_imported")
def test_an_engine_that_tells_its_kernels_times_is_planned_for_by_them(tmp_path, monkeypatch):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    opened = []
    for name in ("open", "watch"):
        original = getattr(Runtime, name)
        watched = lambda self, *args, f=original: opened.append(self.engine) or f(self, *args)  # noqa: E731
        monkeypatch.setattr(Runtime, name, watched)
    x, runtime = torch.randn(1, 3, 8, 8), Runtime(engine="reference")
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    graph = sp.trace(net, x)
    multiples = {"conv": 2, "depthwise": 2, "linear": 2}
    cost = sp.cost.learn_cost(graph, runtime, probes=4, seconds=0.1, multiples=multiples)
    assert set(opened) == {"reference"}
    assert cost.runtime == runtime
    assert {(kernel.op, kernel.layer) for kernel in cost.kernels} == {("Conv", "0"), ("Relu", "1"), ("Conv", "2")}
    assert cost.unmatched == 0
    held = sp.cost.learn_cost(graph, runtime, probes=4, seconds=0.1, multiples=multiples)
    assert held.dense_ms == cost.dense_ms  # kept under the engine's own name
    sp.cost.learn_cost(graph, Runtime(), probes=4, seconds=0.1, multiples=multiples)
    assert len(list(tmp_path.glob("probes-*"))) == 2  # and onnxruntime's beside it
    layers = time_layers({"dense": sp.export_onnx(net, x, tmp_path / "m.onnx")}, runtime=runtime, seconds=0.05)
    assert list(layers["dense"]) == ["0", "1", "2"]


def test_unknown_engines_are_named():
    with pytest.raises(RecipeError, match="unknown engine 'reference'"):
        Runtime(engine="reference")
    assert list(ENGINES) == ["onnxruntime", "openvino", "torch", "torch.compile"]
    assert all(isinstance(engine, Engine) and engine.description for engine in ENGINES.values())


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"dtypes": ("int4",)}, r"Own\.dtypes has 'int4', which is not one of float32, int8"),
        ({"devices": ("tpu",)}, r"Own\.devices has 'tpu', which is not one of cpu, cuda"),
        ({"kernels_on": ("cuda",)}, r"Own\.kernels_on has 'cuda', which is not one of cpu"),
    ],
)
def test_what_no_engine_can_declare_is_said(declared, message):
    with pytest.raises(ValueError, match=message):
        type("Own", (Engine,), declared)
