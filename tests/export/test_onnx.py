"""ONNX files: checked, dynamic in the batch, and equal to the module in onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import ModelError
from structprune.export import OPSET
from tests.example_networks import Chain, TwoInputs, randomise


def test_dynamic_batch_names_opset_and_parity(tmp_path):
    model = randomise(Chain()).train()
    path = sp.export_onnx(model, torch.randn(2, 3, 10, 10), tmp_path / "m.onnx")
    assert model.training
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == OPSET
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("x", ["batch", 3, 10, 10])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("output", ["batch", 5])]
    model.eval()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 10, 10)
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], model(x).detach(), rtol=1e-4, atol=1e-6)


def test_keyword_inputs_and_dict_outputs(tmp_path):
    inputs = {"depth": torch.randn(2, 2, 4, 4), "image": torch.randn(2, 3, 4, 4)}
    path = sp.export_onnx(TwoInputs(), inputs, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {i.name for i in session.get_inputs()} == {"depth", "image"}
    assert [o.name for o in session.get_outputs()] == ["output_0", "output_1"]


def test_a_model_that_can_t_be_exported_leaves_no_file(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.lstsq(x, x).solution

    with pytest.raises(ModelError, match="Odd can't be exported to ONNX"):
        sp.export_onnx(Odd(), torch.randn(4, 4), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_the_older_exporter_can_t_write_the_newer_one_does(tmp_path, capfd):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = torch.nn.functional.pad(self.a(x), [1, 1, 1, 1])
            return self.b(x.unfold(2, 4, 2).mean(-1).unfold(3, 4, 2).mean(-1))

    model, x = Windows().eval(), torch.randn(1, 3, 8, 8)
    file = sp.export_onnx(model, x, tmp_path / "w.onnx")
    assert capfd.readouterr().out == ""
    session = onnxruntime.InferenceSession(str(file))
    two = torch.randn(2, 3, 8, 8)
    (made,) = session.run(None, {"x": two.numpy()})
    assert torch.allclose(torch.from_numpy(made), model(two), atol=1e-5)


def test_what_neither_exporter_can_write_says_so(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x @ x.transpose(1, 2))

    with pytest.raises(ModelError, match=r"Odd can't be exported to ONNX: .* newer exporter: "):
        sp.export_onnx(Odd(), torch.randn(2, 3, 3), tmp_path / "odd.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("eps", "opset"), [(None, OPSET), (1e-5, OPSET), (1e-5, 18)])
def test_rms_norm(tmp_path, affine, eps, opset):
    model = nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8, eps=eps, elementwise_affine=affine)).eval()
    if affine:
        nn.init.uniform_(model[1].weight)
    x = torch.randn(2, 5, 6)
    session = onnxruntime.InferenceSession(str(sp.export_onnx(model, x, tmp_path / "m.onnx", opset=opset)))
    (made,) = session.run(None, {"input": x.numpy()})
    assert torch.allclose(torch.from_numpy(made), model(x), atol=1e-5)


@pytest.mark.parametrize("inputs", [torch.tensor(1.0), (), {"x": torch.randn(1, 3, 8, 8), "y": 1}, [[1]], {1: 2}])
def test_inputs_that_the_model_does_not_take(tmp_path, inputs):
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with pytest.raises(ModelError, match="Sequential does not run on the example inputs"):
        sp.export_onnx(model, inputs, tmp_path / "a.onnx")
