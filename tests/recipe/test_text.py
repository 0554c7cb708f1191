"""What stands in a recipe is checked without torch; the tables of names for that are what is registered."""

import json
import subprocess
import sys

import pytest

from structprune.criteria import COMBINE, CRITERIA
from structprune.data import SOURCES
from structprune.plan import ALLOCATIONS
from structprune.recipe import RECOVERIES, known_names
from structprune.runtimes import ENGINES
from structprune.tasks import TASKS
from tests.recipe.files import QUICKSTART, RECIPES
from tests.test_strict_yaml import BAD

HEAVY = ("torch", "timm", "onnxruntime", "onnx", "accelerate", "scipy", "numpy", "torchvision")
MISTAKES = {
    "modle.name=x": "unknown key 'modle': did you mean model",
    "model.nam=x": "unknown key 'nam': did you mean name",
    "data.imagesize=8": "unknown key 'imagesize': did you mean image_size",
    "data.source=digts": "unknown data source 'digts': did you mean digits",
    "data={image_size: 8}": "source is missing: give one of digits, folder, images, mnist5k, text_lines, text_pages, ",
    "data={source: folder, path: here, held_out: 2}": "data.held_out: Input should be less than 1, not 2",
    "task=clasification": "unknown task 'clasification': did you mean classification",
    "task={name: segmentation}": "task.num_classes: Field required",
    "train.epochs=many": "train.epochs: Input should be a valid integer",
    "train.methods=[slimimng]": "unknown training method 'slimimng': did you mean slimming",
    "prune.criterion=l11": "unknown criterion 'l11': did you mean l1",
    "prune.combine=maximum": "unknown way to combine 'maximum': did you mean max",
    "prune.allocation=globl": "unknown allocation 'globl': did you mean global",
    "runtime.engine=openvin": "unknown engine 'openvin': did you mean openvino",
    "runtime.dtype=int4": "runtime.dtype: Input should be 'float32' or 'int8', not 'int4'",
    "recover=[mean]": "unknown recovery 'mean': did you mean means",
    "seed": "--set seed: give it as key=value",
}
TRY = """
import json, sys
from typer.testing import CliRunner
from structprune.cli import app
answers = []
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(app, arguments)
    heavy = [name for name in HEAVY if name in sys.modules]
    answers.append([result.exit_code, result.output, heavy])
print(json.dumps(answers))
"""


def answers_to(commands):
    """(exit code, output, what was imported that is heavy) of each command line, all in one fresh process."""
    code = f"HEAVY = {HEAVY}\n{TRY}"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(commands), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.thorough
def test_mistakes_in_a_recipes_text_are_said_without_torch(tmp_path):
    commands = [["run", str(QUICKSTART), "--set", override] for override in MISTAKES]
    for name, (text, _) in BAD.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        commands.append(["run", str(tmp_path / f"{name}.yaml")])
    for verb in ("plan", "sensitivity", "compare"):
        commands.append([verb, str(QUICKSTART), "--set", "sed=1"])
    (tmp_path / "short.yaml").write_text("seed: 1\n")
    commands += [[verb, str(tmp_path / "short.yaml")] for verb in ("inspect", "profile")]
    answers = answers_to(commands)
    for (code, output, heavy), command in zip(answers, commands, strict=True):
        assert (code, heavy) == (2, []), command
        assert output.startswith("error: ")
    for message, (_, output, _) in zip(MISTAKES.values(), answers, strict=False):
        assert message in output
        assert output.count("\n") == 1


def test_recipes_that_are_sound_are_read_without_torch():
    code = f"""
import sys
from structprune.recipe import check_text
for path in {[str(path) for path in RECIPES]}:
    check_text(path)
check_text("quickstart", ["train.opt=what", "runtime.device=cuda", "prune.criterion=taylor"])
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("names", "registry"),
    [
        (known_names.CRITERIA, CRITERIA),
        (known_names.COMBINE, COMBINE),
        (known_names.ALLOCATIONS, ALLOCATIONS),
        (known_names.ENGINES, ENGINES),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_names_that_are_known_are_those_that_are_registered(names, registry):
    assert names.registered() is registry
    package = "structprune."
    own = {name for name in registry if _home(registry[name]).startswith(package)}
    assert sorted(names.own) == sorted(own)


def test_names_are_read_off_decorators_however_they_are_laid_out(tmp_path, monkeypatch):
    """And not off a comment or a docstring that shows one."""
    (tmp_path / "norms.py").write_text(
        '''"""
@criterion("shown", "in a docstring")
"""
@other
@criterion( # the name follows
    'mine', "a criterion",
)
def mine(group): ...
'''
    )
    assert known_names.decorated_names(str(tmp_path), "criterion") == ("mine",)


def _home(record):
    own = (getattr(record, name, None) for name in ("function", "allocate", "version"))
    function = next((function for function in own if function is not None), record)
    return str(function.__module__)


@pytest.mark.parametrize("registry", [RECOVERIES, SOURCES, TASKS], ids=lambda registry: registry.kind)
def test_specs_that_are_declared_are_those_of_the_records(registry):
    own = {name: record.spec for name, record in registry.items() if record.spec.__module__.startswith("structprune.")}
    assert dict(registry.specs) == own


@pytest.mark.thorough
def test_a_source_that_is_put_into_the_package_is_known_in_the_first_step(tmp_path):
    code = f"""
import sys
import structprune.data
structprune.data.__path__.append({str(tmp_path)!r})
from structprune.recipe import check_text
from structprune.errors import RecipeError
def tried():
    try:
        check_text("quickstart", ["data.source=mine", "train=null", "finetune=null"])
    except RecipeError as error:
        return str(error)
print("unknown data source 'mine'" in tried(), "torch" in sys.modules)
open({str(tmp_path / "own_source.py")!r}, "w").write('''
from typing import Literal
from structprune.data.record import SOURCES, Source
from structprune.data.spec import DataSpec
class MineSpec(DataSpec):
    source: Literal["mine"]
    image_size: int = 8
SOURCES.add(Source("mine", "", MineSpec, print))
''')
print(tried())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\nNone\n"
