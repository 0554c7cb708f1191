"""As a stranger does it: the wheel in an environment outside of the clone, a network and pictures of one's own."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

from tests.image_folders import write_digits
from tests.test_shipped_recipes import build_wheel

ROOT = Path(__file__).parents[1]
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(32), nn.Linear(32, num_classes)

    def forward(self, x):
        return self.head(self.norm(self.two(self.one(x).relu())).relu().mean((2, 3)))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of programs of a fresh environment with the wheel; what it needs comes from this one's."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "venv", with_pip=False)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps", "--no-index"]
    subprocess.run([*install, build_wheel(folder)], check=True, capture_output=True)
    found = [sys.executable, "-c", "import site; print(site.getsitepackages()[0])"]
    packages = subprocess.run([programs / "python", *found[1:]], check=True, capture_output=True, text=True).stdout
    (Path(packages.strip()) / "needed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return programs


@pytest.fixture
def place(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    write_digits(tmp_path / "photos", each=30)
    return tmp_path


def called(installed, place, program, *arguments):
    hidden = ("PYTHONPATH", "PYTHONHOME", "STRUCTPRUNE_STORE")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    env |= {"STRUCTPRUNE_TIMING": "off", "STRUCTPRUNE_CACHE": str(place / "cache")}
    done = subprocess.run([installed / program, *arguments], cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_three_commands_from_a_network_and_a_folder_to_a_slim_network(installed, place):
    where = called(installed, place, "python", "-c", "import structprune; print(structprune.__file__)")
    assert installed.parent in Path(where.strip()).parents  # and not the clone's
    assert "net.yaml is written. Run it: structprune run net.yaml" in called(
        installed, place, "structprune", "init", "net.py:Net", "--data", "photos"
    )
    shown = called(installed, place, "structprune", "run", "net.yaml")
    assert "gate passed" in shown
    report = json.loads((place / "runs" / "net" / "report.json").read_text())
    assert report["gate"]["passed"]
    assert report["quality"]["final"] > 0.6
    loaded = called(installed, place, "python", "-c", "import net, structprune; print(structprune.load('runs/net'))")
    width = int(re.search(r"\(one\): Conv2d\(1, (\d+), ", loaded).group(1))
    assert width < 16


@pytest.mark.slow
def test_the_same_by_the_python_of_the_documents(installed, place):
    (block,) = re.findall(
        r"```python\n(import structprune as sp\nfrom structprune.first_recipe .*?)```", PAGE, re.DOTALL
    )
    assert len(block.strip().splitlines()) <= 15
    sys.path.insert(0, str(place))
    try:
        import net

        torch.manual_seed(0)
        torch.save(net.Net().state_dict(), place / "net.pth")
    finally:
        sys.path.remove(str(place))
        sys.modules.pop("net", None)
    (place / "whole.py").write_text(block)
    shown = called(installed, place, "python", "whole.py")
    assert "'metric': 'accuracy'" in shown
    assert (place / "runs" / "net" / "slim.safetensors").is_file()


PAGE = (ROOT / "docs" / "own_model.md").read_text()
