"""Recipes: the ones we ship are sound, and every mistake gets one clear line before any work."""

import sys

import pytest
import yaml

from structprune.errors import RecipeError
from structprune.recipe import read_recipe
from tests.recipe.files import QUICKSTART, RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_sound(path):
    budget = read_recipe(path).prune.budget
    assert budget.macs or budget.speedup or budget.quality_drop


def test_the_timm_recipes_use_pretrained_weights():
    names = {"convnext_atto", "densenet121", "mobilenetv2_100", "mobilenetv3_small_100", "regnetx_002"}
    names |= {"resnet18", "resnet50", "vgg16_bn", "vit_tiny_patch16_224"}
    found = {path.stem: read_recipe(path).model for path in RECIPES if path.stem in names}
    assert set(found) == names
    assert all(model.pretrained and model.name == name for name, model in found.items())


def test_overrides():
    recipe = read_recipe(
        QUICKSTART,
        ["prune.budget.macs=0.5", "train.epochs=3", "prune.ignore=[conv1*]", "finetune=null", "runtime.threads=2"],
    )
    assert recipe.prune.budget.macs == 0.5
    assert recipe.train.epochs == 3
    assert recipe.prune.ignore == ("conv1*",)
    assert recipe.finetune is None
    assert recipe.runtime.threads == 2


def test_other_runtimes_have_the_runtimes_threads_and_batch():
    also = ["runtime={threads: 2, batch: 4}", "bench.also=[torch, {engine: openvino, threads: 1}, {batch: 8}]"]
    found = [(r.engine, r.threads, r.batch) for r in read_recipe(QUICKSTART, also).also]
    assert found == [("torch", 2, 4), ("openvino", 1, 4), ("onnxruntime", 2, 8)]


def test_what_a_recipe_asks_for_is_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(
        RecipeError, match=r"runtime: engine torch on cuda was asked for, and torch finds no CUDA device"
    ):
        read_recipe(QUICKSTART, ["runtime={engine: torch, device: cuda}"])
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RecipeError, match=r"bench\.also\.0: .*pip install 'structprune\[openvino\]'"):
        read_recipe(QUICKSTART, ["bench.also=[openvino]"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prune.criterion=l11"], r"prune\.criterion: unknown criterion 'l11': did you mean l1"),
        (["model.name=resnet10"], r"model\.name: unknown model 'resnet10': did you mean resnet10t or resnet101"),
        (["model.name=resnett10t"], r"unknown model 'resnett10t': did you mean resnet10t"),
        (["prune.allocation=globl"], "unknown allocation 'globl': did you mean global"),
        (["train.opt=adamv"], r"train\.opt: unknown optimizer 'adamv': did you mean adam"),
        (["prune.budgett=1"], r"unknown key 'budgett': did you mean budget"),
        (["modle.name=x"], r"unknown key 'modle': did you mean model"),
        (["data.imagesize=8"], r"unknown key 'imagesize': did you mean image_size"),
        (["prune.budget.macs=much"], r"prune\.budget\.macs: .*not 'much'"),
        (["prune.budget.macs=-1"], r"prune\.budget\.macs: .*greater than 0, not -1"),
        (
            ["prune.budget={}"],
            r"prune\.budget: give macs, params, channels, latency_ms, speedup, quality_drop or agreement",
        ),
        (["prune.max_ratio=2"], r"prune\.max_ratio: .*not 2"),
        (["prune.criterion=thinet"], "criterion thinet needs calibration images: add data.calibration"),
        (["recover=[least_squares]"], "recovery needs calibration images: add data.calibration"),
        (["recover=[means, mean]"], r"recover\.1: unknown recovery 'mean': did you mean means"),
        (
            ["recover=[batchnorm, means]", "data.calibration.images=8"],
            "recover: put `means` before `batchnorm`",
        ),
        (["recover=[{method: least_squares, ridgee: 1}]"], r"recover\.0.*: unknown key 'ridgee': did you mean ridge"),
        (["prune.combine=maximum"], "unknown way to combine 'maximum': did you mean max"),
        (["prune.combine=max", "prune.criterion=group_l1"], "group_l1 scores coupled layers as a whole"),
        (
            ["prune.scan={}", "prune.allocation=uniform"],
            "prune.scan: allocation uniform does not scan: leave scan out, or choose (sensitivity or knapsack|"
            "knapsack or sensitivity)$",
        ),
        (["recover=[{method: polish, epochs: true}]"], r"recover\.0.*epochs: true is a truth value: give a number"),
        (["recover=[{method: polish, block_epochs: true}]"], r"block_epochs: true is a truth value: give a number"),
        (["data.calibration.image=8"], r"unknown key 'image': did you mean images"),
        (["data.calibration={path: here}"], "calibration takes the training images of digits"),
        (["data.source=imagenet"], r"data: .*imagenet"),
        (["data={source: images}"], "train needs labels, and data.source=images has none"),
        (["train.patience=0"], "train.patience: Input should be greater than or equal to 1"),
        (["train.methods=[slimimng]"], "unknown training method 'slimimng': did you mean slimming"),
        (["train.methods=[{method: slimming, stregth: 2}]"], "unknown key 'stregth': did you mean strength"),
        (["train.warmup_epochs=50"], r"warmup_epochs=50 leaves nothing of epochs=12"),
        (["prune=null"], r"prune: "),
        (["seed.x=1"], r"--set seed\.x=1: seed is a value|seed"),
        (["prune"], "--set prune: give it as key=value"),
        (["prune.align=atuo"], r"prune\.align: 'atuo' is neither auto nor a whole number"),
        (["prune.align=0"], r"prune\.align: 0 is neither auto"),
        (["prune.budget={speedup: 0.5}"], r"prune\.budget\.speedup: .*1, not 0\.5"),
        (["export.int8=true"], "int8 needs calibration images"),
        (["runtime.engine=openvin"], r"runtime\.engine: unknown engine 'openvin': did you mean openvino"),
        (["runtime={engine: torch, dtype: int8}"], r"runtime: torch runs networks in float32, not in int8"),
        (["bench.also=[torch, openvin]"], r"bench\.also\.1\.engine: unknown engine 'openvin': did you mean openvino"),
        (["bench.also=[{engine: torch, dtype: int8}]"], r"bench\.also\.0: torch runs networks in float32"),
        (["bench.also=[{thread: 2}]"], r"bench\.also\.0\.thread: unknown key 'thread': did you mean threads"),
        (["bench.also=[{engine: openvino, device: cuda}]"], r"openvino runs on cpu here, not on cuda"),
        (["bench.also=[{dtype: int8}]"], "int8 needs calibration images"),
        (["runtime.dtype=int4"], r"runtime\.dtype: Input should be 'float32' or 'int8', not 'int4'"),
    ],
)
def test_mistakes_get_one_clear_line(overrides, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(QUICKSTART, overrides)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe at .*quickstrt\.yaml: did you mean one of .*quickstart\.yaml"):
        read_recipe(QUICKSTART.with_name("quickstrt.yaml"))
    with pytest.raises(RecipeError, match="no recipe at"):
        read_recipe(tmp_path)
    (tmp_path / "a.yaml").write_text("a: [1")
    with pytest.raises(RecipeError, match="is not YAML"):
        read_recipe(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="holds list, not a mapping"):
        read_recipe(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not YAML"):
        read_recipe(tmp_path / "a.yaml")
    data = yaml.safe_load(QUICKSTART.read_text())
    del data["prune"]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(RecipeError, match=r"a\.yaml: prune: Field required"):
        read_recipe(tmp_path / "a.yaml")
