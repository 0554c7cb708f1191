"""Networks of one's own in runs: a slim network is pruned again, and torch-pruning is told the outputs."""

import pytest
import torch
from torch import fx

import structprune as sp
from structprune.compare.peer_settings import output_layers
from structprune.models import CodeSpec, RunSpec, build_model, resolve_model_data_config
from structprune.models.inputs import says_its_images
from structprune.recipe import check_recipe
from tests.models.files import write_network

pytestmark = pytest.mark.usefixtures("_short_turns")

QUICK = {"prune": {"budget": {"macs": 0.5}, "align": 1}, "bench": {"seconds": 0.2}}


def recipe(model, **options):
    return check_recipe({"model": model, "data": {"source": "digits", "image_size": 8}, **QUICK, **options})


def test_a_slim_network_that_is_a_graph_is_pruned_again_and_stays_one(tmp_path):
    path, x = write_network(tmp_path), torch.randn(2, 1, 8, 8)
    model = build_model(CodeSpec(source=f"{path}:Net", kwargs={"width": 16}), 0, lambda line: None)
    graph = sp.trace(model, x[:1], form="graph")
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    first = sp.save(sp.prune(model, plan), plan, tmp_path / "first")
    sp.export_onnx(sp.load(first), x, first / "slim.onnx")  # which says that its images are grey
    report = sp.run(recipe({"run": str(first)}), tmp_path / "again")
    assert report["gate"]["passed"]
    assert report["form"] == "graph"
    assert report["macs"]["dense"] == plan.macs["slim"]
    assert report["model"]["name"] == str(first)
    slim = sp.load(tmp_path / "again")
    assert isinstance(slim, fx.GraphModule)
    assert slim(x).shape == (2, 10)


def test_torch_pruning_is_told_which_layers_make_the_outputs(tmp_path):
    path = write_network(tmp_path)
    asked = recipe({"source": f"{path}:Net"})
    graph = sp.trace(build_model(asked.model, 0, lambda line: None), torch.zeros(1, 1, 8, 8))
    assert output_layers(graph) == ["head"]  # no num_classes, no get_classifier says so


def test_what_a_run_knows_of_its_images_is_known_again(tmp_path):
    path, x = write_network(tmp_path), torch.randn(2, 1, 8, 8)
    model = build_model(CodeSpec(source=f"{path}:Net"), 0, lambda line: None)
    graph = sp.trace(model, x[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    first = sp.save(sp.prune(model, plan), plan, tmp_path / "first")
    spec = RunSpec(run=str(first), code=str(path))
    assert not says_its_images(build_model(spec, 0, lambda line: None))  # no recipe: ImageNet's would be assumed
    sp.export_onnx(sp.load(first), x, first / "slim.onnx")
    (first / "recipe.yaml").write_text(
        "model: {source: 'net.py:Net'}\ndata: {source: folder, mean: [0.2], std: [0.3]}\n"
    )
    config = resolve_model_data_config(known := build_model(spec, 0, lambda line: None))
    assert says_its_images(known)
    assert (config["input_size"], config["mean"], config["std"]) == ((1, 8, 8), [0.2], [0.3])
    (first / "recipe.yaml").write_text("model: {name: vit_base_patch16_224}\ndata: {source: images}\n")
    config = resolve_model_data_config(build_model(spec, 0, lambda line: None))
    assert config["mean"] == (0.5, 0.5, 0.5)  # as timm's model wants them
