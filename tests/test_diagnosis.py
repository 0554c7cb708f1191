"""What `structprune doctor` says of a machine."""

import json
import os
from importlib import metadata

import torch
from typer.testing import CliRunner

from structprune import __version__, diagnosis
from structprune.cli import app
from structprune.diagnosis import diagnose


def test_versions_threads_and_engines_are_those_of_this_process():
    found = diagnose()
    assert found.environment.packages["structprune"] == __version__
    assert found.environment.packages["torch"] == metadata.version("torch")
    assert found.threads == torch.get_num_threads()
    states = {(state.engine, state.device): state for state in found.engines}
    assert states["onnxruntime", "cpu"].version
    assert not states["onnxruntime", "cpu"].missing
    for state in found.engines:
        assert bool(state.missing) != bool(state.version)


def test_what_is_missing_of_an_extra_is_named(monkeypatch):
    lines = [
        "torch>=2.6",
        'torch-pruning>=1.6; extra == "compare"',
        'ray>=2.9; extra == "far"',
        'numpy>=9999; extra == "far"',
        "ruff; extra == 'dev'",
    ]
    monkeypatch.setattr(diagnosis, "requires", lambda package: lines)
    versions = {"torch-pruning": "1.6.1", "numpy": "2.0"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(diagnosis, "version", version)
    assert {extra.extra: extra.missing for extra in diagnose().extras} == {
        "compare": [],
        "far": ["ray>=2.9", "numpy>=9999"],
    }


def test_a_busy_machine_and_a_folder_that_cannot_be_written_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0, 0.0, 0.0))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRUCTPRUNE_CACHE", str(tmp_path / "file" / "cache"))
    notes = " ".join(diagnose().notes)
    assert "other programs are at work (load 64.0" in notes
    assert "is a file: set STRUCTPRUNE_CACHE" in notes


def test_the_command_prints_it_as_a_table_and_as_json():
    result = CliRunner().invoke(app, ["doctor"], color=False)
    assert result.exit_code == 0
    assert torch.__version__ in result.stdout
    data = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert data["environment"]["packages"]["torch"] == torch.__version__
