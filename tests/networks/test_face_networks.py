"""MTCNN's networks have the keys and shapes of the weights that install from the registry, and are cut and mended."""

import importlib.util

import pytest
import torch

import structprune as sp
from structprune.errors import RecipeError
from structprune.faces.windows import face_windows
from structprune.models import CodeSpec, build_model
from structprune.networks.face_networks import FaceFinisher, FaceProposer, FaceRefiner

# keys and shapes of data/*.pt in the package facenet-pytorch, read from the files; each has a bias beside it
WEIGHTS = {
    FaceProposer: "conv1 10×3×3×3 prelu1 10 conv2 16×10×3×3 prelu2 16 conv3 32×16×3×3 prelu3 32 conv4_1 2×32×1×1 "
    "conv4_2 4×32×1×1",
    FaceRefiner: "conv1 28×3×3×3 prelu1 28 conv2 48×28×3×3 prelu2 48 conv3 64×48×2×2 prelu3 64 dense4 128×576 "
    "prelu4 128 dense5_1 2×128 dense5_2 4×128",
    FaceFinisher: "conv1 32×3×3×3 prelu1 32 conv2 64×32×3×3 prelu2 64 conv3 64×64×3×3 prelu3 64 conv4 128×64×2×2 "
    "prelu4 128 dense5 256×1152 prelu5 256 dense6_1 2×256 dense6_2 4×256 dense6_3 10×256",
}
SIZES = {FaceProposer: 12, FaceRefiner: 24, FaceFinisher: 48}
INSTALLED = pytest.mark.skipif(
    importlib.util.find_spec("facenet_pytorch") is None,
    reason="the weights are not installed: pip install --no-deps facenet-pytorch",
)


@pytest.mark.parametrize("kind", WEIGHTS, ids=lambda kind: kind.__name__)
def test_keys_shapes_and_outputs(kind):
    network = kind().eval()
    names = WEIGHTS[kind].split()
    expected = dict(zip(names[::2], names[1::2], strict=True))
    state = network.state_dict()
    assert {
        key.removesuffix(".weight"): "×".join(map(str, x.shape)) for key, x in state.items() if "weight" in key
    } == expected
    assert {key.removesuffix(".bias") for key in state if "bias" in key} == {n for n in expected if "prelu" not in n}
    outputs = network(torch.zeros(2, 3, SIZES[kind], SIZES[kind]))
    assert [x.flatten(1).shape[1] for x in outputs.values()] == [2, 4, 10][: len(outputs)]
    assert list(outputs) == ["logits", "boxes", "points"][: len(outputs)]


@pytest.mark.parametrize("kind", WEIGHTS, ids=lambda kind: kind.__name__)
def test_they_are_cut_and_mended(kind):
    torch.manual_seed(0)
    network = kind().eval()
    images = torch.randn(8, 3, SIZES[kind], SIZES[kind])
    graph = sp.trace(network, images)
    assert not [barrier for barrier in graph.barriers if "output" not in barrier.reason], graph.barriers
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=2)
    slim = sp.prune(network, plan)
    done = sp.recover(network, slim, plan, images, ["means", "least_squares"])

    def distance(other):
        with torch.no_grad():
            here, there = other(images), network(images)
        return sum(float((here[name] - there[name]).square().sum()) for name in here)

    assert distance(done.model) < 0.5 * distance(slim)


@INSTALLED
@pytest.mark.parametrize(("kind", "file"), [(FaceRefiner, "rnet.pt"), (FaceFinisher, "onet.pt")])
def test_the_weights_of_the_package_find_faces(kind, file):
    source = f"structprune.networks.face_networks:{kind.__name__}"
    model = build_model(CodeSpec(source=source, weights=f"package:facenet-pytorch/{file}"), 0)
    images, labels = face_windows(SIZES[kind], train=1, test=128)["test"].tensors
    with torch.no_grad():
        assert float((model(images)["logits"].argmax(1) == labels).float().mean()) > 0.9


def test_how_to_get_the_weights(monkeypatch):
    monkeypatch.setattr("importlib.metadata.files", lambda name: None)
    spec = CodeSpec(source="structprune.networks.face_networks:FaceFinisher", weights="package:facenet-pytorch/onet.pt")
    with pytest.raises(RecipeError, match=r"holds no \.pth or \.pt file: pip install --no-deps facenet-pytorch"):
        build_model(spec, 0)


@pytest.mark.slow
@INSTALLED
def test_the_recipe_runs_to_its_end(tmp_path):
    report = sp.run("mtcnn_onet", tmp_path, overrides=["bench.seconds=1", "data.kwargs.test=256"])
    assert report["gate"]["passed"]
    likeness = report["quality"]["likeness"]["agreement"]
    assert likeness["final"] > 0.97 > likeness["pruned"]
