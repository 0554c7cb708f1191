"""Other engines than onnxruntime compute the same, are set back, and refuse what they can't run."""

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import structprune as sp
from structprune.bench import Module, benchmark, engines
from structprune.bench.session import made_up_inputs
from structprune.cli import app
from structprune.errors import RecipeError
from structprune.recipe import check_recipe

RECIPE = {
    "model": {"name": "resnet10t"},
    "data": {"source": "images"},
    "prune": {"budget": {"macs": 0.5}},
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 3)).eval()
    path = sp.export_onnx(model, torch.zeros(1, 3, 10, 10), tmp_path_factory.mktemp("engines") / "net.onnx")
    (values,) = made_up_inputs(path, 2).values()
    with torch.no_grad():
        return model, path, torch.from_numpy(values), model(torch.from_numpy(values)).numpy()


SLOW = pytest.param("torch.compile", marks=pytest.mark.slow)  # its compiler takes 20 s


@pytest.mark.parametrize("engine", ["onnxruntime", "torch", SLOW, "openvino"])
def test_each_engine_makes_the_networks_own_outputs(network, engine):
    model, path, x, expected = network
    if engine == "openvino":
        pytest.importorskip("openvino")
    subject = path if engine in engines.OF_FILES else Module(model.train(), [x])  # timed in evaluation mode
    made = engines.opener(engine, 2, 1)(subject)()
    if engine == "onnxruntime":
        return  # its outputs are the gate's business; it ran
    assert np.allclose(made[0] if engine == "openvino" else made, expected, atol=1e-5)
    if engine not in engines.OF_FILES:
        assert model.training
        model.eval()


def test_the_processs_threads_are_set_for_the_timing_alone(network, monkeypatch):
    model, _, x, _ = network
    seen = []
    forward = model.forward
    monkeypatch.setattr(type(model), "forward", lambda self, x: seen.append(torch.get_num_threads()) or forward(x))
    before = torch.get_num_threads()
    found = benchmark(
        {"a": Module(model, [x]), "b": Module(model, [x])}, batch=2, threads=before + 1, seconds=0.05, engine="torch"
    )
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    assert found.runtime == f"torch {torch.__version__} CPU"
    low, high = found.ci95["b"]
    assert low <= found.speedup["b"] <= high


def test_what_an_engine_cant_time_is_refused(network, monkeypatch, tmp_path):
    model, path, x, _ = network
    with pytest.raises(RecipeError, match="times modules"):
        benchmark({"a": path, "b": path}, engine="torch")
    with pytest.raises(RecipeError, match="times ONNX files"):
        benchmark({"a": Module(model, [x]), "b": Module(model, [x])})
    done = CliRunner().invoke(app, ["bench", str(path), str(path), "--engine", "torch"])
    assert done.exit_code == 2
    assert "times modules" in done.output
    with pytest.raises(RecipeError, match=r"bench.also.0.engine: .*did you mean .*openvino"):
        check_recipe({**RECIPE, "bench": {"also": ["openvin"]}})
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"structprune\[openvino\]"):
        check_recipe({**RECIPE, "bench": {"also": ["openvino"]}})
