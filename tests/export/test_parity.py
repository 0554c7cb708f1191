"""What `export_onnx` hands over computes what the network does: written anew, refused, or said not to be compared."""

from __future__ import annotations

import logging

import onnxruntime
import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import ModelError
from structprune.export import OPSET, opset_of


class Boxes(nn.Module):
    """Writes into a view, which torch's older exporter leaves out."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.how = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), how

    def forward(self, x):
        y = self.b(self.a(x).relu()).permute(0, 2, 3, 1).sigmoid()
        if self.how == "copy":
            y.narrow(-1, 0, 2).copy_(y[..., 0:2] * 8 - 4)
        elif self.how == "setitem":
            y[..., 0:2] = y[..., 0:2] * 8 - 4
        else:
            corner = y[..., 4]
            corner += 2
        return y


def _largest_difference(model, path, x) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        return float((torch.from_numpy(made) - model(x)).abs().max())


@pytest.mark.parametrize("how", ["copy", "setitem", "add"])
def test_a_write_into_a_view_is_in_the_file(tmp_path, how):
    model, x = Boxes(how).eval(), torch.randn(1, 3, 6, 6)
    assert _largest_difference(model, sp.export_onnx(model, x, tmp_path / "m.onnx"), x) < 1e-5


def test_a_write_into_a_slice_of_the_graph_form_is_in_its_file(tmp_path):
    model, x = Boxes("setitem").eval(), torch.randn(1, 3, 6, 6)
    graph = sp.trace(model, x, form="graph")
    slim = sp.prune(model, sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1))
    assert _largest_difference(slim, sp.export_onnx(slim, x, tmp_path / "m.onnx"), x) < 1e-5


def test_a_file_that_differs_is_not_handed_over(tmp_path, monkeypatch):
    export = torch.onnx.export

    def older_alone(*arguments, dynamo, **options):
        if dynamo:
            raise NotImplementedError("not today")
        export(*arguments, dynamo=False, **options)

    monkeypatch.setattr(torch.onnx, "export", older_alone)
    with pytest.raises(ModelError, match=r"output 0 of the file differs by \d"):
        sp.export_onnx(Boxes("copy").eval(), torch.randn(1, 3, 6, 6), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_the_runtime_has_no_kernel_for_is_said(tmp_path, caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double().eval()
    with caplog.at_level(logging.WARNING, "structprune.export"):
        path = sp.export_onnx(model, torch.randn(1, 3, 6, 6, dtype=torch.float64), tmp_path / "m.onnx")
    assert opset_of(path) == OPSET
    assert "m.onnx was not compared with the network: " in caplog.text
    assert "NOT_IMPLEMENTED" in caplog.text


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Masked(nn.Module):
    def forward(self, x):
        return x.masked_fill(x < 0, float("-inf")), x > 0, (x * 0) / 0, torch.tensor(1.0)


def test_random_networks_are_named_and_infinities_are_equal(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "structprune.export"):
        sp.export_onnx(Masked(), torch.randn(2, 3), tmp_path / "masked.onnx")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING, "structprune.export"):
        sp.export_onnx(Noise(), torch.randn(2, 3), tmp_path / "noise.onnx")
    assert "noise.onnx was not compared with the network: it is not the same twice" in caplog.text


def test_what_is_sensitive_to_rounding_is_held_to_that(tmp_path):
    class Steep(nn.Module):
        def forward(self, x):
            return torch.sin(x * 1e5)

    x = torch.rand(2, 3) + 1
    session = onnxruntime.InferenceSession(str(sp.export_onnx(Steep(), x, tmp_path / "m.onnx")))
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert made.shape == (2, 3)
    assert abs(made).max() <= 1
