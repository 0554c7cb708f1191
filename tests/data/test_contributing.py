"""CONTRIBUTING's data source and task as they stand there: one file each, no edit elsewhere; a recipe knows them."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from structprune.data import SOURCES, load_data
from structprune.quality_judge import Judge
from structprune.recipe import check_recipe
from structprune.tasks import TASKS
from structprune.tasks.building import make_task

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def _added(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    with SOURCES.restored(), TASKS.restored():
        for name in ("noise_source", "counting_task"):
            (tmp_path / f"{name}.py").write_text(BLOCKS[f"{name}.py"])
            __import__(name)
        yield
    for name in ("noise_source", "counting_task"):
        sys.modules.pop(name)


@pytest.mark.usefixtures("_added")
def test_one_file_adds_a_source_and_one_a_task():
    recipe = check_recipe(
        {
            "model": {"name": "resnet10t"},
            "data": {"source": "noise", "images": 9},
            "task": "counting",
            "prune": {"budget": {"macs": 0.5}},
        }
    )
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(1)).eval()
    model(torch.zeros(1, 3, 16, 16))
    data = load_data(recipe.data, model, 0)
    judge = Judge(make_task(recipe.task), data.test, model, labelled=data.labelled)
    assert (judge.dense.metric, judge.dense.value, judge.dense.n) == ("change", 0.0, 7)
    assert judge.dense.higher_is_better is False
    images = data.test.tensors[0]
    labels = model(images).flatten().detach() + 2
    told = Judge(make_task("counting"), TensorDataset(images, labels), model).dense
    assert (told.metric, round(told.value, 4)) == ("error", 2.0)
