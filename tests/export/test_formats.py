"""What a slim network is also written as: equal to it, read back elsewhere, or a line that says why not."""

import json
import re
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from torch import nn

import structprune as sp
from structprune.errors import RecipeError
from structprune.export import FORMATS, Finished, metadata_of, write_format
from structprune.models import TimmSpec
from structprune.ops import Inputs
from structprune.recipe import check_recipe
from structprune.recipe.known_names import FORMATS as NAMES
from structprune.verify.format_files import compare_format
from tests.docs.blocks import blocks_of
from tests.example_networks import Chain, LeNet, TwoInputs, randomise
from tests.run.small_network import RECIPE

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))
IMAGES = {"input_size": [3, 10, 10], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}


def finished(model, x, folder, spec=None):
    """A slim network of half the MACs with the files that a run has before other formats are written."""
    model.eval()
    graph = sp.trace(model, x)
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5})
    slim = sp.prune(model, plan)
    sp.save(slim, plan, folder)
    metadata = metadata_of(plan, model="chain", task="classification", images=IMAGES, labels=["cat", "dög"])
    onnx = sp.export_onnx(slim, x, folder / "slim.onnx", metadata=metadata)
    return Finished(slim, Inputs.of(x), onnx, folder / "slim.safetensors", spec, metadata)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    torch.manual_seed(0)
    return finished(randomise(Chain()), torch.randn(2, 3, 10, 10), tmp_path_factory.mktemp("chain"))


def test_names_are_known_without_importing_them():
    assert NAMES.own == tuple(FORMATS)
    assert len({file for record in FORMATS.values() for file in record.files}) == sum(
        len(record.files) for record in FORMATS.values()
    )


@pytest.mark.parametrize("name", ["onnx_any_size", "openvino", "pt2"])
def test_files_equal_the_network_at_other_batches_and_sizes(chain, tmp_path, name):
    assert write_format(name, chain, tmp_path) == ""
    assert {path.name for path in tmp_path.iterdir()} == set(FORMATS[name].files)
    compared = compare_format(FORMATS[name], chain, tmp_path)
    assert compared.passed, compared.detail
    assert compared.batches == ([1, 2, 2, 2, 2] if FORMATS[name].any_size else [1, 2])
    assert not compared.left_out
    run = FORMATS[name].open(chain, tmp_path)
    x = torch.randn(5, 3, 10, 10)
    assert torch.allclose(run(Inputs.of(x))[0], chain.slim(x), atol=1e-5)


@pytest.mark.parametrize("name", ["openvino", "pt2"])
def test_several_inputs_and_outputs(tmp_path, name):
    inputs = {"depth": torch.randn(1, 2, 4, 4), "image": torch.randn(1, 3, 4, 4)}
    both = finished(randomise(TwoInputs()), inputs, tmp_path)
    assert write_format(name, both, tmp_path) == ""
    assert compare_format(FORMATS[name], both, tmp_path).passed


def test_each_file_says_what_it_is(chain, tmp_path):
    session = onnxruntime.InferenceSession(str(chain.onnx))
    texts = session.get_modelmeta().custom_metadata_map
    assert texts == chain.metadata
    assert json.loads(texts["structprune.images"]) == IMAGES
    assert json.loads(texts["structprune.labels"]) == ["cat", "dög"]
    assert re.fullmatch("[0-9a-f]{64}", texts["structprune.plan"])
    assert (texts["structprune.version"], texts["structprune.network"]) == (sp.__version__, "slim")
    write_format("pt2", chain, tmp_path)
    extra = {"structprune.json": ""}
    program = torch.export.load(tmp_path / "slim.pt2", extra_files=extra)
    assert program.example_inputs is None  # whoever gets the file does not get the user's images
    assert json.loads(extra["structprune.json"]) == texts
    openvino = pytest.importorskip("openvino")
    write_format("openvino", chain, tmp_path)
    info = openvino.Core().read_model(tmp_path / "slim.xml").get_rt_info(["structprune", "plan"])
    assert info.value == texts["structprune.plan"]


def test_the_page_reads_a_file_s_texts_and_lets_timm_build_the_slim_network(tmp_path, monkeypatch):
    name, folder = "test_byobnet", tmp_path / "runs" / "NAME"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    spec, model = TimmSpec(name=name, kwargs={"num_classes": 7}), randomise(timm.create_model(name, num_classes=7))
    mine = finished(model, torch.randn(2, 3, 64, 64), folder, spec)
    assert write_format("timm", mine, folder) == ""
    assert compare_format(FORMATS["timm"], mine, folder).passed

    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks_of("docs/deploying.md"):
        exec(block.code.replace("resnet18", name).replace("num_classes=10", "num_classes=7"), names)
    assert (names["images"], names["labels"]) == (IMAGES, ["cat", "dög"])
    slim, x = names["slim"].eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(slim(x), sp.load(folder)(x))
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in names["dense"].parameters())


def test_what_timm_s_text_has_no_words_for_is_said_in_one_line(chain, tmp_path):
    assert write_format("timm", chain, tmp_path) == "timm's text is for networks that timm makes by name"
    model, spec = timm.create_model("test_vit", num_classes=7), TimmSpec(name="test_vit", kwargs={"num_classes": 7})
    x = torch.randn(2, *model.pretrained_cfg["input_size"])
    reason = write_format("timm", finished(model, x, tmp_path, spec), tmp_path)
    assert re.fullmatch(r"timm's text can't say all widths: \S+ is \(.*\), and timm makes \(.*\)", reason)
    assert not (tmp_path / "slim.timm.txt").exists()


def test_a_network_of_one_size_is_not_written_for_any(tmp_path):
    fixed = finished(randomise(LeNet("flatten")), torch.randn(2, 1, 32, 32), tmp_path)
    assert "does not run on images of 96×160" in write_format("onnx_any_size", fixed, tmp_path)
    assert not (tmp_path / "slim.any_size.onnx").exists()


@pytest.mark.slow  # torch's newer exporter is tried too
def test_sizes_that_an_exporter_would_fix_are_found(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.b(self.a(x)).sum((2, 3)) / int(x.shape[2])

    with pytest.raises(sp.errors.ModelError, match="can't be exported to ONNX: FileDiffers"):
        sp.export_onnx(Fixed().eval(), torch.randn(2, 3, 32, 32), tmp_path / "f.onnx", any_size=True)


def test_one_file_adds_a_format_and_a_file_that_differs_is_found(chain, tmp_path):
    with FORMATS.restored():
        exec(BLOCKS["arrays_format.py"], {})
        assert check_recipe({**RECIPE, "export": {"formats": ["arrays"]}}).export.formats == ("arrays",)
        assert write_format("arrays", chain, tmp_path) == ""
        record = FORMATS["arrays"]
        assert compare_format(record, chain, tmp_path).passed
        other = {key: tensor * 1.01 for key, tensor in chain.slim.state_dict().items()}
        changed = sp.load(chain.weights.parent)
        changed.load_state_dict(other)
        wrong = Finished(changed, chain.inputs, chain.onnx, chain.weights)
        record.write(wrong, tmp_path)
        compared = compare_format(record, chain, tmp_path)
        assert compared.failed
        assert "relative difference" in compared.detail
        (tmp_path / "slim.npz").write_bytes(b"no zip")
        assert "the file does not open" in compare_format(record, chain, tmp_path).detail
    assert "arrays" not in FORMATS


def test_recipes_check_formats_and_opset():
    def checked(**export):
        return check_recipe({**RECIPE, "export": export}).export

    assert checked(formats=["onnx", "pt2", "pt2"]).formats == ("pt2",)  # ONNX is always written
    with pytest.raises(RecipeError, match=r"export\.formats.*unknown format 'openvno': did you mean openvino\?"):
        checked(formats=["openvno"])
    assert checked(opset=20).opset == 20
    for opset in (13, 24):
        with pytest.raises(RecipeError, match=r"export\.opset"):
            checked(opset=opset)
