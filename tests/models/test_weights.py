"""Weights of checkpoints as people have them: read as data, unwrapped with a note, or refused in one line."""

import argparse
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from structprune.errors import RecipeError
from structprune.models.weights import load_weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight


class Settings:
    pass


@pytest.fixture
def state():
    torch.manual_seed(0)
    return Tied().state_dict()


def prefixed(state, prefix):
    return OrderedDict((prefix + key, value) for key, value in state.items())


def loaded(path):
    torch.manual_seed(1)
    model, lines = Tied(), []
    load_weights(model, str(path), "Tied", lines.append)
    return model.state_dict(), lines


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda s: s, []),
        (lambda s: {"epoch": 3, "state_dict": s}, ["the weights under state_dict were taken"]),
        (lambda s: {"model": prefixed(s, "module.")}, ["under model were", "the prefix module. of every key was"]),
        (lambda s: prefixed(s, "_orig_mod.module."), ["the prefix _orig_mod.module. of"]),
        (lambda s: {"state_dict": prefixed(s, "net."), "lr": 1}, ["under state_dict were", "the prefix net. of"]),
        (lambda s: {"model": {"model_state_dict": s}}, ["under model.model_state_dict were"]),
        (lambda s: {"model": s, "args": argparse.Namespace(lr=1)}, ["under model were"]),  # as timm's train.py does
        (lambda s: {"state_dict_ema": s, "state_dict": {}}, ["under state_dict_ema were"]),
        (
            lambda s: {"state_dict": {k: v * 0 for k, v in s.items()}, "state_dict_ema": s},
            [r"under state_dict_ema (and not those under state_dict) were"],
        ),
        (lambda s: {k: v for k, v in s.items() if "num_batches" not in k}, []),  # as before torch 0.4.1
        (lambda s: {k: v for k, v in s.items() if k != "b.weight"}, []),  # tied to a.weight
    ],
)  # fmt: skip
def test_checkpoints(tmp_path, state, wrap, notes):
    torch.save(wrap(state), tmp_path / "net.pth")
    held, lines = loaded(tmp_path / "net.pth")
    assert all(torch.equal(held[key], value) for key, value in state.items())
    assert len(lines) == len(notes)
    assert all(note in line and "net.pth" in line for note, line in zip(notes, lines, strict=True))


def test_safetensors(tmp_path, state):
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "net.safetensors")
    held, lines = loaded(tmp_path / "net.safetensors")
    assert all(torch.equal(held[key], value) for key, value in state.items())
    assert lines == []
    prefix = {f"module.{key}": value.clone() for key, value in state.items()}
    save_file(prefix, tmp_path / "net.safetensors")
    assert "the prefix module. of every key" in loaded(tmp_path / "net.safetensors")[1][0]


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda s: Tied(), r"more than tensors \(.*Tied, .*torch\.save\(model\.state_dict\(\), 'weights\.pth'\)"),
        (lambda s: {"model": s, "args": Settings()}, r"holds more than tensors \(tests.*Settings\)"),
        (lambda s: {"model": s, "best": np.float64(3)}, r"holds more than tensors \(numpy"),
        (lambda s: [1], r"holds a list, not a state_dict"),
        (lambda s: {}, r"holds nothing, and no state_dict under any of"),
        (lambda s: {"epoch": 3}, r"holds epoch, and no state_dict"),
        (lambda s: {"a": torch.ones(1)}, r"Tied: 8 missing \(a\.weight, a\.bias, bn\.weight, …\), 1 unexpected \(a\)"),
        (lambda s: {k: v for k, v in s.items() if k != "a.bias"}, r"1 missing \(a\.bias\)$"),
        (lambda s: {**s, "head.weight": torch.ones(1)}, r"1 unexpected \(head\.weight\)$"),
        (lambda s: {**s, "a.bias": torch.ones(5)}, r"1 of other shapes \(a\.bias is \(5,\) there and \(4,\) in the"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, state, wrap, message):
    torch.save(wrap(state), tmp_path / "net.pth")
    with pytest.raises(RecipeError, match=message) as caught:
        loaded(tmp_path / "net.pth")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_checkpoints(tmp_path, state):
    torch.save(state, tmp_path / "good.pth")
    broken = {
        "empty.pth": b"",
        "text.pt": b"pickled",
        "cut.pth": (tmp_path / "good.pth").read_bytes()[:900],
        "evil.pth": b"cos\nsystem\n(S'touch ran'\ntR.",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            RecipeError, match=rf"{name} (is damaged or not a checkpoint|holds more than tensors)"
        ) as caught:
            loaded(tmp_path / name)
        assert len(str(caught.value)) < 400
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(RecipeError, match=r"is a TorchScript archive: save its weights alone"):
        loaded(tmp_path / "script.pt")
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"net\.onnx is none of \.safetensors, \.pth"):
        loaded(tmp_path / "net.onnx")
    with pytest.raises(RecipeError, match=r"there is no file .*none\.pth"):
        loaded(tmp_path / "none.pth")
