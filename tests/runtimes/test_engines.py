"""Every engine runs the network that it is given, and says at once what it can not do."""

import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.cost import learn_cost, learning, multiples
from structprune.errors import ModelError, RecipeError
from structprune.runtimes import ENGINES, Runtime
from structprune.runtimes.made_up_inputs import made_up_inputs
from tests.example_networks import Chain, TwoInputs, randomise

X = torch.randn(2, 3, 10, 10)
EAGER, COMPILED = Runtime(engine="torch"), Runtime(engine="torch.compile")


@pytest.fixture(autouse=True)
def _denormals():
    """onnxruntime's sessions leave the calling thread flushing them."""
    torch.set_flush_denormal(False)


def arrays(made):
    """What a run gave, as arrays."""
    return [np.asarray(value) for value in (made if isinstance(made, list) else [made])]


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "torch.compile"])
def test_an_engine_gives_the_outputs_of_the_module(engine, tmp_path):
    model, runtime = randomise(Chain()), Runtime(engine=engine, batch=5)
    model.train()
    source = runtime.prepare(model, X, tmp_path / "m.onnx")
    if runtime.files:
        (x,) = (torch.from_numpy(value) for value in made_up_inputs(source, 5).values())
    else:
        x = X[[0, 1, 0, 1, 0]]
    with runtime.active():
        (made,) = arrays(runtime.open(source).run())
    assert model.training
    np.testing.assert_allclose(made, model.eval()(x).detach(), rtol=1e-4, atol=1e-5)
    assert runtime.version in runtime.name
    assert engine.partition(".")[0] in runtime.version


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_several_inputs_by_name(engine, tmp_path):
    inputs, runtime = {"depth": torch.randn(2, 2, 4, 4), "image": torch.randn(2, 3, 4, 4)}, Runtime(engine=engine)
    source = runtime.prepare(TwoInputs(), inputs, tmp_path / "m.onnx")
    found = sp.benchmark({"a": source, "b": source}, runtime=runtime, seconds=0.02, rounds=2)
    assert found.runtime == runtime.version
    assert found.turns >= 8


def test_openvino_runs_int8_in_int8(tmp_path):
    model, runtime = randomise(Chain()), Runtime(engine="openvino", dtype="int8")
    source = runtime.prepare(model, X, tmp_path / "m.onnx")
    assert source.name == "m-int8.onnx"
    opened = runtime.open(source)
    kinds = {
        node.get_rt_info()["layerType"].astype(str): node.get_rt_info()["runtimePrecision"].astype(str)
        for node in opened.request.get_compiled_model().get_runtime_model().get_ops()
    }
    assert kinds["Convolution"] in ("u8", "i8")
    (made,) = arrays(opened.run())
    (x,) = (torch.from_numpy(value) for value in made_up_inputs(source).values())
    wanted = model(x).detach().numpy()
    assert np.abs(made - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.thorough
def test_torch_compile_compiles_once_and_never_while_it_is_timed(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    counts = torch._dynamo.utils.counters["stats"]
    before = counts["unique_graphs"]
    nets = {name: nn.Sequential(nn.Linear(4, 3), nn.ReLU()) for name in "ab"}
    found = sp.benchmark(nets, runtime=COMPILED, example_inputs=torch.randn(1, 4), seconds=0.02, rounds=9)
    assert found.turns >= 36
    assert counts["unique_graphs"] - before == 2
    with COMPILED.active():
        x = torch.randn(1, 4)
        opened = COMPILED.open(COMPILED.prepare(nets["a"], x, None))
        torch.testing.assert_close(opened.run(), nets["a"](x))
    monkeypatch.setattr(torch._inductor.config, "freezing", True)
    assert COMPILED.version == f"torch {torch.__version__} compiled with frozen weights"

    class Breaks(nn.Module):
        def forward(self, x):
            torch._dynamo.graph_break()
            return x + 1

    with pytest.raises(ModelError, match=r"Breaks can't be compiled by torch\.compile as one graph") as caught:
        COMPILED.open(COMPILED.prepare(Breaks(), x, None))
    assert "\n" not in str(caught.value)


def test_torch_settings_are_put_back_also_after_an_error():
    before = torch.get_num_threads()

    def flushing():
        return (torch.tensor(1e-310, dtype=torch.float64) * 0.5).item() == 0

    seen = []

    class Looks(nn.Module):
        def forward(self, x):
            seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training, flushing()))
            return x

    runtime = Runtime(threads=2, engine="torch")
    sp.benchmark({"a": Looks(), "b": Looks()}, runtime=runtime, example_inputs=X, seconds=0.01, rounds=2)
    assert set(seen) == {(2, True, False, True)}
    assert (torch.get_num_threads(), flushing()) == (before, False)

    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        sp.benchmark({"a": Fails(), "b": Fails()}, runtime=runtime, example_inputs=X, seconds=0.01)
    assert (torch.get_num_threads(), flushing()) == (before, False)


def test_denormal_weights_are_zero_in_the_copy_alone():
    model = nn.Linear(4, 3)
    model.weight.data[0, 0] = 1e-42
    opened = EAGER.open(EAGER.prepare(model, torch.randn(1, 4), None))
    assert opened.model.weight[0, 0].item() == 0
    assert model.weight.view(torch.int32)[0, 0].item() != 0
    assert torch.equal(opened.model.weight[1:], model.weight[1:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "openvin"}, "unknown engine 'openvin': did you mean openvino"),
        (
            {"engine": "torch", "dtype": "int8"},
            "torch runs networks in float32, not in int8: take onnxruntime or openvin",
        ),
        ({"engine": "openvino", "device": "cuda"}, "openvino runs on cpu here, not on cuda"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_what_an_engine_does_not_do_is_said(given, message):
    with pytest.raises(RecipeError, match=message):
        Runtime(**given)


def test_what_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="torch on cuda was asked for, and torch finds no CUDA device: install"):
        Runtime(engine="torch", device="cuda")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RecipeError, match="has no CUDAExecutionProvider: install onnxruntime-gpu in its place"):
        Runtime(device="cuda")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RecipeError, match=r"needs openvino: pip install 'structprune\[openvino\]'"):
        Runtime(engine="openvino")


def test_files_are_for_some_engines_and_modules_for_others(tmp_path):
    path = sp.export_onnx(randomise(Chain()), X, tmp_path / "m.onnx")
    with pytest.raises(RecipeError, match=r"torch runs modules, and .*m\.onnx is an ONNX file.*bench\.also"):
        sp.benchmark({"a": path, "b": path}, runtime=EAGER)
    with pytest.raises(RecipeError, match="onnxruntime runs ONNX files: write Chain by export_onnx"):
        sp.benchmark({"a": Chain(), "b": Chain()}, example_inputs=X)
    with pytest.raises(RecipeError, match="a is a module: give example_inputs"):
        sp.benchmark({"a": Chain(), "b": Chain()}, runtime=EAGER)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(RecipeError, match="can't be opened by"):
        sp.benchmark({"a": tmp_path / "bad.onnx", "b": path}, runtime=Runtime(engine="openvino"))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_steps_are_measured_on_the_engine(engine, monkeypatch):
    opened, original = [], Runtime.open
    monkeypatch.setattr(multiples, "WIDTHS", (64, 72, 80))
    monkeypatch.setattr(Runtime, "open", lambda self, source: opened.append(self.engine) or original(self, source))
    found = multiples.measure_multiples(Runtime(engine=engine), seconds=0.01)
    assert set(found) == {"conv", "depthwise", "linear"}
    assert set(opened) == {engine}
    assert len(opened) >= 18  # three widths of three kinds, opened anew


def test_costs_on_another_engine_have_onnxruntimes_shape_and_the_engines_scale(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path))
    made, taken = [], {"torch": 40.0, "openvino": 10.0}

    def measure_multiples(runtime, progress, **options):
        made.append(runtime.engine)
        return {"conv": [2], "depthwise": [2], "linear": [2]}

    monkeypatch.setattr(learning, "measure_multiples", measure_multiples)
    monkeypatch.setattr(learning, "time_dense", lambda graph, runtime, *_: taken[runtime.engine])
    graph = sp.trace(randomise(Chain()), X[:1])
    there = learn_cost(graph, probes=4, seconds=0.1)
    for engine, ms in taken.items():
        cost = learn_cost(graph, Runtime(engine=engine), probes=4, seconds=0.1)
        assert (cost.runtime.engine, cost.dense_ms) == (engine, ms)
        for widths in ({}, {graph.groups[0].name: 2}):
            assert cost.at(widths, graph) / there.at(widths, graph) == pytest.approx(ms / there.dense_ms)
        assert cost.fixed == pytest.approx(there.fixed)
    assert made == ["onnxruntime", "torch", "openvino"]  # each its own steps, and the probes were kept
    assert len([path for path in os.listdir(tmp_path) if path.startswith("probes")]) == 1
