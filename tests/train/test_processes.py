"""Two processes that train, cut and train the slim network, as `accelerate launch` would start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.train.two_processes import data

ROOT = Path(__file__).parents[2]


@pytest.mark.thorough
def test_the_gradients_of_the_slim_network_are_averaged_over_processes(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "tests.train.two_processes", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, **shared}, stderr=subprocess.PIPE, timeout=240)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    first, second = (torch.load(tmp_path / f"out.{rank}") for rank in (0, 1))
    assert first["said"] == second["said"]  # both end by what the first one measures
    stopped, odd, apart = first["said"]
    assert "epoch" in stopped
    assert odd == "batch_size=9 can't be shared evenly by 2 processes: give a multiple of 2"
    assert apart.endswith("batch_size=6 leaves each of 2 processes an odd number: give a multiple of 4")
    for network in ("dense", "before", "slim", "stopped"):  # weights and BatchNorm's statistics
        assert all(torch.equal(value, second[network][key]) for key, value in first[network].items()), network
    # one step on the mean gradient of two batches is a step on the gradient over all images
    images, labels = data()
    before = first["before"]
    convs = [nn.Conv2d(w.shape[1], w.shape[0], 3) for w in (before["0.weight"], before["2.weight"])]
    net = nn.Sequential(
        convs[0], nn.ReLU(), convs[1], nn.BatchNorm2d(len(before["3.weight"])), nn.ReLU(), nn.Flatten(),
        nn.Linear(before["6.weight"].shape[1], 3),
    )  # fmt: skip
    net.load_state_dict(before)
    F.cross_entropy(net.eval()(images), labels).backward()
    for key, parameter in net.named_parameters():
        expected = before[key] - 0.5 * parameter.grad
        torch.testing.assert_close(first["slim"][key], expected, rtol=1e-4, atol=1e-6)
    assert not torch.equal(first["slim"]["0.weight"], before["0.weight"])
