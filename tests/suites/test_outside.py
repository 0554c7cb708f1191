"""tools/outside.py: a network from trace to a training step, and an oracle that sees a wrong cut."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from structprune.suites.outside import NETWORKS, PACKAGES
from structprune.suites.outside.records import counts, right, trouble
from structprune.suites.outside.registry import image, network
from structprune.suites.outside.running import check_installed
from structprune.suites.outside.steps import zeroed
from tests.example_networks import pruned

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.mark.thorough
def test_a_network_is_put_through_every_step(tmp_path):
    results, page = tmp_path / "results.json", tmp_path / "outside.md"
    command = [sys.executable, str(TOOLS / "outside.py"), "--only", "own_pointnet", "--jobs", "1"]
    subprocess.run([*command, "--results", str(results), "--write", str(page)], check=True, capture_output=True)
    record = json.loads(results.read_text())["outside"]["own_pointnet"]
    assert (record["status"], record["faults"]) == ("passed", {})
    assert record["cut"] >= 1.5
    assert [record[step] for step in ("zeroed", "reloaded", "other_batch", "training_step")] == ["right"] * 4
    assert "1 right at 1.5× fewer MACs" in page.read_text()


@pytest.mark.thorough
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


def test_the_counts_and_the_reasons_of_records():
    passed = {"model": "a", "status": "passed", "cut": 2.0, "form": "module", "gate_passed": True, "onnx": "passed"}
    short = {**passed, "model": "b", "cut": 1.1}
    failed = {**passed, "model": "c", "status": "failed", "silent": True, "faults": {"zeroed": "differs by 0.5"}}
    refused = {"model": "d", "status": "refused", "error": "ModelError", "message": "no"}
    assert [right(record) for record in (passed, short, failed, refused)] == [True, False, False, False]
    assert trouble(failed) == "zeroed: differs by 0.5"
    assert trouble(refused) == "refused: ModelError: no"
    assert counts([passed, short, failed, refused]) == (
        "4 networks: 1 right at 1.5× fewer MACs or more (1 in module form, 0 in graph form), 1 right below that, "
        "1 with a fault (1 silently wrong), 1 refused, 0 broke"
    )


def test_every_network_is_of_a_package_that_the_extra_names():
    extra = re.search(r"^outside = \[(.*)\]$", (TOOLS.parent / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert {package for package in PACKAGES.values() if package not in extra} == {"own"}
    assert NETWORKS.keys() == PACKAGES.keys()
    with pytest.raises(ValueError, match="own_pointnet is registered twice"):
        network("own", "own_pointnet")(image)


def test_a_missing_package_is_one_line_that_names_the_extra(capsys):
    with pytest.raises(SystemExit) as end:
        check_installed(["own_pointnet", "hf_bert"], {"torch": "2"})
    assert end.value.code == 2
    assert "transformers is not installed: pip install -c constraints.txt -e '.[outside]'" in capsys.readouterr().err
