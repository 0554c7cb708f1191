"""What an editor says of the package: nothing of the documents' examples, and an error for each misspelt name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import structprune as sp

from .blocks import blocks_of

PYRIGHT = shutil.which("pyright", path=str(Path(sys.executable).parent)) or shutil.which("pyright")
MISTAKES = """
import torch
import structprune as sp

model, x = torch.nn.Conv2d(3, 8, 3), torch.randn(1, 3, 8, 8)
graph = sp.trace(model, x)
scores = sp.score(graph, "l1")
plan = sp.plan(graph, scores, {"macs": 0.5, "speedup": 2})
sp.recover(model, model, plan, x, ["means", {"method": "least_squares", "ridge": 0.1}])
sp.score(graph, "my_own", combine="sum")
sp.recover(model, model, plan, x, ["my_own"])  # may be registered, as a criterion may; an unknown name is refused there
print(sp.plan.allocations.Load, sp.plan.ALLOCATIONS["uniform"].needs, sp.plan.allocation_of("uniform").quick)
print(sp.run.stages, sp.verify.Gate, sp.recover.means.__name__)

print(sp.plan.alocations)  # wrong: "alocations" for class "PlanPackage"
sp.plan.allocations.allocation("mine", "what it does", need=["scan"])  # wrong: No parameter named "need"
sp.plan(graph, scores, {"mac": 0.5})  # wrong: "mac" is an undefined item
sp.plan(graph, scores, {"macs": "half"})  # wrong: not assignable to "float"
sp.plan(graph, scores, {"macs": 0.5}, alignment=8)  # wrong: No parameter named "alignment"
sp.trace(model, x, form="grph")  # wrong: not assignable to type "Form"
sp.score(graph, "l1", combine="average")  # wrong: not assignable to type "Combination
sp.criterion("mine", "what it is", needs=["activation"])  # wrong: parameter "needs" of type "Sequence[Need]"
sp.recover(model, model, plan, x, [{"method": "means", "source": "images"}])  # wrong: not assignable to type "Rec
sp.prune(plan, model)  # wrong: not assignable to "Module"
sp.prnue(model, plan)  # wrong: "prnue" is not a known attribute
sp.cost.lern_cost(graph)  # wrong: "lern_cost" is not a known attribute
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What pyright says in strict mode: (line, text) of every complaint, by the file's name."""
    if PYRIGHT is None:
        pytest.skip("pyright is not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("types")
    for page in ("docs/python.md", "docs/own_model.md"):
        code = "\n".join(block.code for block in blocks_of(page))
        (folder / Path(page).with_suffix(".py").name).write_text(code)
    (folder / "mistakes.py").write_text(MISTAKES)
    root = str(Path(sp.__file__).parents[1])
    options = {"typeCheckingMode": "strict", "include": ["."], "extraPaths": [root]}
    (folder / "pyrightconfig.json").write_text(json.dumps(options))
    command = [PYRIGHT, "--outputjson", "--pythonpath", sys.executable, "--project", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = {path.name: [] for path in folder.glob("*.py")}
    for entry in json.loads(result.stdout)["generalDiagnostics"]:
        complaints[Path(entry["file"]).name].append((entry["range"]["start"]["line"] + 1, entry["message"]))
    return complaints


@pytest.mark.thorough
@pytest.mark.parametrize("file", ["python.py", "own_model.py"])
def test_an_editor_finds_nothing_in_the_examples(said, file):
    assert said[file] == []


@pytest.mark.thorough
def test_an_editor_marks_each_mistake_and_nothing_else(said):
    lines = MISTAKES.splitlines()
    wrong = {number: line.split("# wrong: ")[1] for number, line in enumerate(lines, 1) if "# wrong: " in line}
    for number, text in wrong.items():
        assert any(text in message for line, message in said["mistakes.py"] if line == number), (number, text)
    assert {line for line, _ in said["mistakes.py"]} == set(wrong)
