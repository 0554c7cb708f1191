"""tools/outside.py: a network from trace to a training step, and an oracle that sees a wrong cut."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

TOOLS = Path(__file__).parents[1] / "tools"
sys.path.insert(0, str(TOOLS))

from outside_worker import zeroed  # noqa: E402

from tests.toys import pruned  # noqa: E402


def test_a_network_is_put_through_every_step(tmp_path):
    results, page = tmp_path / "results.json", tmp_path / "outside.md"
    command = [sys.executable, str(TOOLS / "outside.py"), "--only", "own_pointnet", "--jobs", "1"]
    subprocess.run([*command, "--results", str(results), "--write", str(page)], check=True, capture_output=True)
    record = json.loads(results.read_text())["outside"]["own_pointnet"]
    assert (record["status"], record["faults"]) == ("passed", {})
    assert record["cut"] >= 1.5
    assert [record[step] for step in ("zeroed", "reloaded", "other_batch", "training_step")] == ["right"] * 4
    assert "1 right at 1.5× fewer MACs" in page.read_text()


def test_an_unknown_network_is_one_line_and_code_2():
    asked = [sys.executable, str(TOOLS / "outside.py"), "--only", "own_pointnets"]
    child = subprocess.run(asked, capture_output=True, text=True)
    assert child.returncode == 2
    assert "error: unknown network 'own_pointnets': did you mean own_pointnet" in child.stderr


@pytest.mark.parametrize("swap", [False, True])
def test_the_zeroed_network_sees_a_wrong_cut(swap):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(1, 3, 8, 8)
    plan, slim = pruned(net, x, 0.5)
    if swap:  # two filters of the first layer in each other's places
        with torch.no_grad():
            slim[0].weight.copy_(slim[0].weight.flip(0))
    assert bool(zeroed(net, slim, plan, x)) == swap
