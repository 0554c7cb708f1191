"""A run that writes other formats: what lies in its folder and its report, and what of the recipe decides that."""

import json

import pytest
import torch

import structprune as sp
from structprune.recipe import check_recipe
from structprune.report import Report, report_table
from structprune.report.run_facts import facts_of
from structprune.run.stage import STAGES
from tests.run.small_network import RECIPE

pytestmark = pytest.mark.usefixtures("_short_turns")


def test_formats_are_handed_out_or_a_line_says_why_not(tmp_path):
    recipe = {key: value for key, value in RECIPE.items() if key not in ("train", "finetune")}
    recipe = check_recipe({**recipe, "export": {"formats": ["pt2", "timm"], "opset": 18}})
    folder = tmp_path / "runs" / "small"
    report = sp.run(recipe, folder)
    pt2, timm = report["formats"]
    assert (pt2["format"], timm["format"], report["onnx"]["opset"]) == ("pt2", "timm", 18)
    assert pt2["files"] == {"slim.pt2": (folder / "slim.pt2").stat().st_size}
    assert pt2["comparison"]["passed"]
    assert (timm["files"], timm["comparison"]) == ({}, None)
    assert timm["reason"] == "timm's text is for networks that timm makes by name"
    assert not (folder / "slim.timm.txt").exists()
    assert facts_of(folder).files["slim.pt2"] == "the slim network for torch.export"
    shown = [str(cell) for column in report_table(Report.model_validate(report), "").columns for cell in column.cells]
    assert {"pt2 file", "timm file", timm["reason"]} <= set(shown)
    extra = {"structprune.json": ""}
    program = torch.export.load(folder / "slim.pt2", extra_files=extra)
    texts = json.loads(extra["structprune.json"])
    assert json.loads(texts["structprune.labels"]) == [str(digit) for digit in range(10)]
    assert json.loads(texts["structprune.images"])["input_size"] == [1, 8, 8]
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(program.module()(x), sp.load(folder)(x), atol=1e-5)


def test_what_is_exported_hangs_on_the_keys_that_decide_it():
    plain = check_recipe(RECIPE)
    other = check_recipe({**RECIPE, "export": {"formats": ["pt2"], "opset": 18}})
    for name in ("dense_onnx", "files"):
        assert STAGES[name].spec(plain) != STAGES[name].spec(other)
    assert not STAGES["formats"].when(plain)
    assert STAGES["formats"].when(other)
    assert STAGES["plan"].spec(plain) == STAGES["plan"].spec(other)
