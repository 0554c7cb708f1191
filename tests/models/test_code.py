"""`source: net.py:Net` and `source: package.module:function`: what is built, and one line for what can't be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import structprune as sp
from structprune import user_code
from structprune.errors import ModelError, RecipeError, StoreError
from structprune.models import MODEL_SOURCES, CodeSpec, build_model, model_source, spec_from_text
from structprune.recipe import check_recipe, read_recipe
from tests.models.files import write_network

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL))


def test_a_class_of_a_file_with_its_sibling(tmp_path):
    path, lines = write_network(tmp_path), []
    spec = CodeSpec(source=f"{path}:Net", kwargs={"width": 12})
    before = list(sys.path)
    model = build_model(spec, 0, lines.append)
    assert type(model).__name__ == "Net"
    assert type(model).__module__ == path.stem
    assert model.a.conv.out_channels == 12
    assert not model.training
    assert lines == [f"runs code of {path}, as the module {path.stem}"]
    assert sys.path[: len(before)] == before  # its folder is last now
    again, other = build_model(spec, 0, lines.append), build_model(spec, 1, lines.append)
    assert torch.equal(model.head.weight, again.head.weight)
    assert not torch.equal(model.head.weight, other.head.weight)
    assert [file.name for file in spec.files()] == [path.name.replace("net", "layers"), path.name]
    assert build_model(CodeSpec(source=f"{path}:small"), 0, lines.append).a.conv.out_channels == 4


@pytest.mark.thorough
def test_a_network_of_a_file_is_loaded_in_a_fresh_process_after_an_import(tmp_path):
    path = write_network(tmp_path)
    model = build_model(CodeSpec(source=f"{path}:Net"), 0, lambda line: None)
    graph = sp.trace(model, torch.zeros(1, 1, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    folder = sp.save(sp.prune(model, plan), plan, tmp_path / "slim")
    code = f"""
import structprune as sp, sys
try:
    sp.load({str(folder)!r})
except sp.errors.StoreError as error:
    print(error)
sys.path.insert(0, {str(tmp_path)!r})
import {path.stem}
print(type(sp.load({str(folder)!r})))
from structprune.models import build_model, RunSpec
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"{path.stem}:Net is not defined here" in told
    assert f"(import {path.stem})" in told
    assert f"<class '{path.stem}.Net'>" in told


def test_a_file_inside_a_package_is_imported_by_its_dotted_name(tmp_path):
    package = tmp_path / "own_package" / "nets"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package.parent / "parts.py").write_text("from torch import nn\nlayer = nn.Linear\n")
    (package / "one.py").write_text("from ..parts import layer\n\ndef make():\n    return layer(3, 4)\n")
    spec = CodeSpec(source=f"{package / 'one.py'}:make")
    assert build_model(spec, 0, lambda line: None).out_features == 4
    assert "own_package.nets.one" in sys.modules
    assert [file.name for file in spec.files()] == ["one.py", "parts.py"]


def test_functions_and_classes_of_packages():
    tell = lambda line: None  # noqa: E731
    assert build_model(CodeSpec(source="torch.nn:Linear", kwargs={"in_features": 3, "out_features": 2}), 0, tell)
    nested = {"layers": [{"source": "torch.nn:ReLU"}]}
    made = build_model(CodeSpec(source="tests.models.test_code:chain", kwargs=nested), 0, tell)
    assert isinstance(made[0], nn.ReLU)
    assert isinstance(build_model(CodeSpec(source="tests.models.test_code:Factory.make"), 0, tell), nn.Identity)


def chain(layers):
    return nn.Sequential(*layers)


class Factory:
    @classmethod
    def make(cls):
        return nn.Identity()


def test_a_module_that_a_file_holds_is_copied(tmp_path):
    (tmp_path / "own_module.py").write_text("from torch import nn\nmodel = nn.Linear(3, 4)\nlazy = nn.LazyLinear(3)\n")
    spec = CodeSpec(source=f"{tmp_path / 'own_module.py'}:model")
    first, second = (build_model(spec, 0, lambda line: None) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert first.weight is not second.weight
    with pytest.raises(ModelError, match=r"is a module already, which takes no arguments: leave kwargs out"):
        build_model(spec.model_copy(update={"kwargs": {"input": 1}}), 0, lambda line: None)
    with pytest.raises(ModelError, match=r"weight has no size until its lazy layer has run"):
        build_model(CodeSpec(source=f"{tmp_path / 'own_module.py'}:lazy"), 0, lambda line: None)
    (tmp_path / "own_link.py").symlink_to(tmp_path / "own_module.py")
    assert user_code.load(str(tmp_path / "own_link.py")).__name__ == "own_link"


def test_paths_are_relative_to_the_recipe_then_to_the_current_folder(tmp_path, monkeypatch):
    path = write_network(tmp_path / "project")
    recipe = tmp_path / "project" / "own.yaml"
    recipe.write_text(
        f"model: {{source: '{path.name}:Net', weights: w.pth}}\n"
        "data: {source: digits}\nprune: {budget: {macs: 0.5}}\n"
    )
    (tmp_path / "project" / "w.pth").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    spec = read_recipe(recipe).model
    assert spec.source == f"{path}:Net"
    assert spec.weights == str(tmp_path / "project" / "w.pth")
    (tmp_path / "project" / "w.pth").rename("w.pth")
    assert read_recipe(recipe).model.weights == "w.pth"
    stored = read_recipe(recipe).model_dump(mode="json")["model"]
    assert stored == {"source": f"{path}:Net", "kwargs": {}, "weights": "w.pth"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Nett", "class Net: pass", r"unknown name 'Nett': did you mean Net\?"),
        ("Net", "class Net: pass", r"makes a Net, not an nn\.Module"),
        ("value", "value = 3", r"value is 3, which can't be called: name a class or a function"),
        ("Net", "x = 1 / 0\nclass Net: pass", r"can't be imported: ZeroDivisionError: division by zero \(line 1\)"),
        ("Net", "class Net(: pass", r"can't be imported: SyntaxError"),
        ("Net", "import sys\nclass Net: pass\nsys.exit()", r"it ends the process: put what it does under `if __name__"),
        ("Net", "import no_such_package\nclass Net: pass", r"ModuleNotFoundError: No module named 'no_such_package'"),
        (
            "Net",
            "class Net:\n  def __init__(self): raise ValueError('no\\nway')",
            r"can't be built with \{\}: ValueError: no$",
        ),
        ("", "class A: pass\nclass Net: pass", r"is a file: say what of it to use, such as .*:A or .*:Net$"),
        ("a-b", "class Net: pass", r"is not FILE\.py:NAME or PACKAGE\.MODULE:NAME"),
        ("Net", "from torch import *\nvalue = 1", r"unknown name 'Net'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, name, text, message):
    path = tmp_path / f"own_file{abs(hash((name, text, str(tmp_path)))) % 10**9}.py"
    path.write_text(text)
    with pytest.raises((RecipeError, ModelError), match=message) as caught:
        build_model(spec_from_text(f"{path}:{name}" if name else str(path)), 0, lambda line: None)
    assert "\n" not in str(caught.value)
    assert path.stem not in sys.modules or "can't be imported" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_file.py:Net", r"there is no file no_such_file\.py"),
        ("no_such_package.nets:Net", r"there is no module no_such_package: install it"),
        ("torch.nn:Linearr", r"unknown name 'Linearr': did you mean "),
        ("torch.no_such:Net", r"the module torch\.no_such can't be imported: ModuleNotFoundError"),
        ("os:system", r"os is one of Python's own modules, which may not be called from here"),
        ("builtins:eval", r"builtins is one of Python's own modules"),
        ("", r"unknown model ''"),
        ("a b:c", r"is neither a \.py file nor the name of a module"),
        ("torch.nn:", r"is not FILE\.py:NAME or PACKAGE\.MODULE:NAME"),
    ],
)
def test_sources_that_are_not_there(source, message):
    with pytest.raises(RecipeError, match=message) as caught:
        build_model(spec_from_text(source), 0, lambda line: None)
    assert "\n" not in str(caught.value)


def test_names_that_stand_for_something_else_are_refused(tmp_path):
    for name in ("json", "timm", "my-net"):
        (tmp_path / f"{name}.py").write_text("class Net: pass\n")
        with pytest.raises(RecipeError, match="rename the file"):
            spec_from_text(f"{tmp_path / name}.py:Net")
    for folder in ("a", "b"):  # two files of one name: the second would get the classes of the first
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own_twin.py").write_text("from torch import nn\nclass Net(nn.Module): pass\n")
    user_code.load(str(tmp_path / "a" / "own_twin.py"))
    with pytest.raises(RecipeError, match=r"b/own_twin\.py would be the module own_twin, and that is .*a/own_twin\.py"):
        user_code.load(str(tmp_path / "b" / "own_twin.py"))
    (tmp_path / "b" / "own_user.py").write_text("from own_twin import Net\n")
    with pytest.raises(RecipeError, match=r"b/own_twin\.py would be the module own_twin"):
        user_code.load(str(tmp_path / "b" / "own_user.py"))


def test_a_file_that_changed_since_it_was_imported_is_refused(tmp_path):
    path = write_network(tmp_path)
    user_code.load(str(path))
    sibling = path.with_name(path.name.replace("net", "layers"))
    assert {path, sibling} == set(user_code.files_with(sibling))
    for file in (path, sibling):
        text = file.read_text()
        file.write_text(text + "\n# more\n")
        with pytest.raises(RecipeError, match=rf"{file.name} has changed since it was imported in this process: start"):
            user_code.load(str(path))
        file.write_text(text)
    assert user_code.load(str(path))


def test_reading_a_recipe_runs_nothing(tmp_path):
    (tmp_path / "own_loud.py").write_text("raise SystemExit('run')\nclass Net: pass\n")
    recipe = tmp_path / "r.yaml"
    text = "model: {source: 'SOURCE'}\ndata: {source: digits}\nprune: {budget: {macs: 0.5}}\n"
    recipe.write_text(text.replace("SOURCE", "own_loud.py:Net"))
    assert read_recipe(recipe).model.source == f"{tmp_path / 'own_loud.py'}:Net"
    assert "own_loud" not in sys.modules
    for change, message in (
        ({"SOURCE": "own_lod.py:Net"}, r"model\.source: there is no file own_lod\.py"),
        ({"source:": "sauce:"}, r"model: unknown key 'sauce': did you mean source"),
        ({"source: 'SOURCE'": "kwargs: {}"}, r"model: say which model by one of name"),
        ({"source: 'SOURCE'": "source: 'own_loud.py:N', name: x"}, r"(source|name) and (source|name) each name"),
        ({"source: 'SOURCE'": "source: 'own_loud.py:Net', weight: a"}, r"model\.weight: unknown key 'weight': did"),
        ({"{source: 'SOURCE'}": "resnet10t"}, r"model: give a mapping with one of .*not 'resnet10t'"),
        ({"source: 'SOURCE'": "run: nowhere"}, r"model\.run: there is no folder nowhere"),
    ):  # fmt: skip
        changed = text
        for old, new in change.items():
            changed = changed.replace(old, new)
        recipe.write_text(changed)
        with pytest.raises(RecipeError, match=message):
            read_recipe(recipe)


def test_a_slim_network_of_a_run_is_a_model_again(tmp_path):
    path = write_network(tmp_path)
    model = build_model(CodeSpec(source=f"{path}:Net"), 0, lambda line: None)
    graph = sp.trace(model, torch.zeros(1, 1, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    folder = sp.save(sp.prune(model, plan), plan, tmp_path / "slim")
    spec, lines = spec_from_text(str(folder), code=str(path)), []
    recipe = {"model": {"run": str(folder), "cod": "a.py"}, "data": {"source": "digits"}, "prune": {}}
    with pytest.raises(RecipeError, match=r"model\.cod: unknown key 'cod': did you mean code\? Known: code, run"):
        check_recipe(recipe)
    again = build_model(spec, 0, lines.append)
    assert lines == [f"runs code of {path}, as the module {path.stem}"]
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again(x), sp.load(folder)(x))
    assert {file.name for file in spec.files()} >= {"plan.json", "slim.safetensors", path.name}
    assert build_model(spec_from_text(str(folder)), 0, lines.append)  # imported already
    with pytest.raises(RecipeError, match=r"holds no slim\.safetensors"):
        spec_from_text(str(tmp_path))
    (folder / "slim.safetensors").write_bytes(b"0" * 99)
    with pytest.raises(RecipeError, match=r"slim\.safetensors is damaged"):
        build_model(spec, 0, lines.append)


def test_a_run_whose_classes_are_not_imported_names_what_to_say(tmp_path, monkeypatch):
    path = write_network(tmp_path)
    model = build_model(CodeSpec(source=f"{path}:Net"), 0, lambda line: None)
    graph = sp.trace(model, torch.zeros(1, 1, 8, 8))
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    folder = sp.save(sp.prune(model, plan), plan, tmp_path / "slim")
    monkeypatch.delitem(sys.modules, path.stem)
    with pytest.raises(StoreError, match=rf"\(import {path.stem}\)"):
        sp.load(folder)
    with pytest.raises(RecipeError, match=r"of other code: name its file or module by model\.code \(or --code\)"):
        build_model(spec_from_text(str(folder)), 0, lambda line: None)


def test_a_new_source_is_one_file(tmp_path):
    """CONTRIBUTING's, as it stands there: all that a source needs, in one module that edits nothing else."""
    (tmp_path / "own_source.py").write_text(BLOCKS["chains.py"])
    with MODEL_SOURCES.restored():
        user_code.load(str(tmp_path / "own_source.py"))
        recipe = tmp_path / "r.yaml"
        recipe.write_text("model: {chain: 3}\ndata: {source: digits}\nprune: {budget: {macs: 0.5}}\n")
        assert len(build_model(read_recipe(recipe).model, 0)) == 3
        with pytest.raises(RecipeError, match=r"model\.chain: .*not 'x'"):
            read_recipe(recipe, ["model.chain=x"])
        assert "'chian': did you mean chain? Known: chain, name, run, source" in MODEL_SOURCES.complain("chian")
        register = model_source("chain", "", MODEL_SOURCES["chain"].spec, lambda text: None)
        with pytest.raises(ValueError, match="a model source named 'chain' is registered already"):
            register(lambda spec, tell: None)
