"""A run in two processes, as torchrun starts them, ends as a run in one does with the same batches."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import structprune as sp
from structprune.compare import compare
from structprune.errors import RecipeError

ROOT = Path(__file__).parents[2]
NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, stride=2), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
        )
"""
SAMPLES = """
import os
import torch
from torch.utils.data import Dataset

class Samples(Dataset):
    reads = 0

    def __len__(self):
        return 128

    def __getitem__(self, index):
        Samples.reads += 1
        if os.environ["RANK"] == "1" and Samples.reads > 400:  # in the midst of training
            raise OSError("this disk is gone")
        return torch.full((1, 8, 8), index / 128), index % 10

def make():
    return {"train": Samples(), "test": [(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.long))]}
"""
RECIPE = """
model: {source: net.py:Net}
data: {source: digits, image_size: 8}
prune: {criterion: l1, budget: {macs: 0.4}, align: 1, schedule: {rounds: 2}}
train: {epochs: 2, batch_size: 64, opt: adamw, lr: 1.0e-3}
finetune: {epochs: 1, batch_size: 64, opt: adamw, lr: 1.0e-3, methods: [distill], clip_grad: 1.0}
bench: {seconds: 0.2}
"""


def launch(folder, out, processes, *options):
    """The command in so many processes, as a launcher starts them. Returns what each prints, and how it ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "structprune", "run", "net.yaml", "--out", out, *options]
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]
    ends = [process.communicate(timeout=300) for process in started]
    return [(process.returncode, *(text.decode() for text in end)) for process, end in zip(started, ends, strict=True)]


@pytest.mark.thorough
def test_two_processes_end_as_one_does(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.yaml").write_text(RECIPE)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        sp.run("net.yaml", "one/run")
    first, second = launch(tmp_path, "two/run", 2)
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "gate passed" in first[1]
    assert not second[1].strip()  # one says it for all
    losses = {}
    for folder in ("one", "two"):
        run = tmp_path / folder / "run"
        for network in ("dense", "slim"):
            rows = list(csv.DictReader((run / f"{network}.summary.csv").open()))
            losses[folder, network] = torch.tensor([float(row["train_loss"]) for row in rows])
    for network in ("dense", "slim"):
        torch.testing.assert_close(losses["two", network], losses["one", network], rtol=1e-4, atol=1e-5)
        one, two = (load_file(tmp_path / folder / "run" / f"{network}.safetensors") for folder in ("one", "two"))
        assert one.keys() == two.keys()
        for key, weight in one.items():
            torch.testing.assert_close(two[key], weight, rtol=1e-3, atol=1e-4)
    plans = [json.loads((tmp_path / folder / "run" / "plan.json").read_text())["keep"] for folder in ("one", "two")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_are_not_connected_are_refused(tmp_path, rank):
    """Where a launcher says how many there are, which this one is, and no more."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "structprune", "run", "net.yaml", "--out", "run"]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "WORLD_SIZE": "2", "RANK": rank, "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    said = " ".join(ended.stderr.decode().split())
    assert ended.returncode == 2, said
    assert said.startswith({"0": "error: ", "1": "error in process 1: "}[rank] + "2 processes were launched, and can't")
    assert "start them by `torchrun --nproc_per_node N -m structprune run ...`; another launcher has to set" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("PARALLELISM_CONFIG_TP_SIZE", "2"),
    ],
)
def test_a_launch_that_splits_the_weights_is_refused_before_any_work(tmp_path, monkeypatch, processes, name, value):
    """On a CPU Accelerate trains whole copies instead, and says nothing."""
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv(name, value)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match="leaves each process a part of the weights"):
        sp.run(tmp_path / "net.yaml", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_is_said_once_and_ends_all(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.yaml").write_text(RECIPE)
    first, second = launch(tmp_path, "run", 2, "--set", "train.epoch=3")
    assert first[0] == second[0] == 2
    assert "train.epoch: unknown key 'epoch'" in " ".join(first[2].split())
    assert not second[2].strip()


def test_a_comparison_is_refused_in_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "net.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match="works in one process, and 2 were launched"):
        compare(tmp_path / "net.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_error_of_one_process_alone_ends_all(tmp_path):
    """The others would wait for its gradients."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "samples.py").write_text(SAMPLES)
    data = "data: {source: samples.py:make}"
    (tmp_path / "net.yaml").write_text(RECIPE.replace("data: {source: digits, image_size: 8}", data))
    first, second = launch(tmp_path, "run", 2, "--set", "train.epochs=20")
    assert first[0] != 0
    assert second[0] != 0
    assert "error in process 1: " in second[2]
    assert "this disk is gone" in second[2]
    assert not (tmp_path / "run" / "report.json").exists()
