"""timm's own sources beside its names, what inspect takes, and `python -m structprune`."""

import json
import os
import runpy
import sys

import pytest
import timm
import torch
from torch import nn
from typer.testing import CliRunner

from structprune.cli import app
from structprune.errors import ModelError, RecipeError
from structprune.inspection import inspect_model
from structprune.models import TimmSpec, build_model, example_inputs, resolve_model_data_config, spec_from_text
from tests.models.files import write_network


def test_a_folder_of_timms(tmp_path):
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=7)
    timm.models.save_for_hf(model, tmp_path / "folder", safe_serialization=True)
    spec = TimmSpec(name=f"local-dir:{tmp_path / 'folder'}", pretrained=True)
    again = build_model(spec, 0)
    assert again.num_classes == 7
    assert torch.equal(model.state_dict()["fc.weight"], again.state_dict()["fc.weight"])
    assert {file.name for file in spec.files()} == {"config.json", "model.safetensors"}
    assert not torch.equal(build_model(spec.untrained(), 0).fc.weight, again.fc.weight)
    with pytest.raises(RecipeError, match=r"there is no .*none/config\.json, which timm's save_for_hf would write"):
        spec_from_text(f"local-dir:{tmp_path / 'none'}")
    (tmp_path / "folder" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="timm can't build local-dir:"):
        build_model(spec, 0)


def test_a_hub_that_is_out_of_reach_is_one_line(monkeypatch):
    import huggingface_hub.utils

    class Session:
        def head(self, *args, **kwargs):
            raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: Session())
    message = r"the files of hf-hub:.* are not in the cache and their hub \(some/net\) can't be reached \(.*no route"
    for name in ("hf-hub:some/net", "hf-hub:some/net@main"):
        with pytest.raises(RecipeError, match=message):
            build_model(spec_from_text(name), 0)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20)


def test_example_inputs_follow_the_first_layer():
    x, line = example_inputs(Tokens(), (16,))
    assert (x.shape, x.dtype) == ((1, 16), torch.int64)
    assert line == "input 1×16 of int64, as the first layer, embed, is an Embedding"
    with pytest.raises(RecipeError, match=r"nothing says how large the inputs of Tokens are: give --input-size"):
        example_inputs(Tokens())
    x, line = example_inputs(nn.Sequential(nn.Conv2d(5, 4, 3)))
    assert x.shape == (1, 5, 224, 224)
    assert "give --input-size" in line
    x, _ = example_inputs(nn.Sequential(nn.Linear(12, 4)))
    assert x.shape == (1, 12)
    x, _ = example_inputs(timm.create_model("test_vit"))
    assert x.shape == (1, 3, 160, 160)
    assert resolve_model_data_config(nn.Conv2d(1, 2, 3))["input_size"] == (1, 224, 224)


def test_inspect_takes_what_recipes_take(tmp_path):
    path, lines = write_network(tmp_path), []
    graph = inspect_model(f"{path}:Net", "1,8,8", kwargs='{"width": 6}', tell=lines.append)
    assert [group.channels for group in graph.groups] == [6, 6]
    assert lines[0].startswith("runs code of ")
    assert lines[1] == "input 1×1×8×8 of float32, as the first layer, a.conv, is a Conv2d"
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"model: {{source: '{path.name}:Net'}}\n"
        "data: {source: digits, image_size: 12}\nprune: {budget: {macs: 0.5}}\n"
    )
    assert inspect_model(str(recipe), tell=lines.append).inputs.args[0].shape[1:] == (1, 12, 12)
    for text, options, message in (
        (f"{path}:Net", {"kwargs": "{width: 3}"}, r"--kwargs '\{width: 3\}' is not JSON"),
        (f"{path}:Net", {"kwargs": "[3]"}, r"--kwargs \[3\] is not a JSON object"),
        (f"{path}:Net", {"code": "a.py"}, r"takes no --code"),
        (str(recipe), {"kwargs": "{}x"}, r"is a recipe: write them into it"),
        (f"{path}:Net", {"input_size": "3,0"}, r"give whole numbers"),
        ("no/such/run", {}, r"there is no folder 'no/such/run'"),
    ):
        with pytest.raises(RecipeError, match=message):
            inspect_model(text, tell=lines.append, **options)


def test_the_command_line_says_what_it_runs(tmp_path):
    path = write_network(tmp_path)
    result = CliRunner().invoke(app, ["inspect", f"{path}:Net", "--input-size", "1,8,8", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["groups"][0]["channels"] == 8
    assert "runs code of" in result.stderr


def test_the_package_is_a_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["structprune", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("structprune", run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("structprune ")


class Runs:
    def __reduce__(self):
        return print, ("this ran",)


def test_nothing_of_a_file_that_timm_loads_is_run(tmp_path, monkeypatch, capsys):
    torch.save({"state_dict": {}, "more": Runs()}, tmp_path / "some.pth")

    def older(name, **options):  # before timm asked for tensors alone
        return torch.load(options["checkpoint_path"], weights_only=False)

    monkeypatch.setattr(timm, "create_model", older)
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    spec = TimmSpec(name="test_resnet", kwargs={"checkpoint_path": str(tmp_path / "some.pth")})
    with pytest.raises(ModelError, match="timm can't build test_resnet"):
        build_model(spec, 0)
    assert "this ran" not in capsys.readouterr().out
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
