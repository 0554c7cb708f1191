"""The house rules that a machine can hold: no circle of imports, nothing too long, public names that say all of it."""

import ast
import builtins
import functools
import importlib
import inspect
import re
import textwrap
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import is_typeddict

import pytest
import torch

import structprune as sp

ROOT = Path(sp.__file__).parent
FILES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name.removesuffix(".__init__"): ast.parse(path.read_text()) for name, path in FILES.items()}
PACKAGES = [name.removesuffix(".__init__") for name in FILES if name.endswith(".__init__")]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def origin_of(name, statement):
    """The whole name of the module that a module imports from, be it told relative to itself or not."""
    if not statement.level:
        return statement.module
    here = name.split(".")
    above = here[: len(here) - statement.level + (name in PACKAGES)]
    return ".".join([*above, *filter(None, [statement.module])])


def imports(name):
    """What a module imports when it is imported: not what functions import when they run, nor what types alone need."""
    statements = list(TREES[name].body)
    for statement in statements:  # which grows on the way
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            statements += statement.orelse
        elif isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            origin = origin_of(name, statement)
            for alias in statement.names:
                whole = f"{origin}.{alias.name}"
                yield whole if whole in TREES else origin
        elif not isinstance(statement, FUNCTIONS):
            inner = ast.iter_child_nodes(statement)
            statements += [child for child in inner if isinstance(child, (ast.stmt, ast.excepthandler))]


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_holds_imports_each_other_in_no_circle(package):
    def part(name):
        """The module, or the package as a whole, that stands in `package`; `package` itself for its `__init__`."""
        return ".".join(name.split(".")[: package.count(".") + 2])

    inside = [name for name in TREES if f"{name}.".startswith(f"{package}.")]
    graph = {part(name): set() for name in inside}
    for name in inside:
        graph[part(name)] |= {part(other) for other in imports(name) if part(other) in graph} - {part(name)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


def test_the_package_imports_nothing_from_tools_or_tests():
    """Not even inside a function: neither is there where the package is installed."""
    tops = {
        (name, module.partition(".")[0])
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        for module in modules_of(node)
    }
    assert {(name, top) for name, top in tops if top in ("tools", "tests")} == set()


TOOLS = ROOT.parent / "tools"


@pytest.mark.parametrize("path", sorted(TOOLS.glob("*.py")), ids=lambda path: path.stem)
def test_a_tool_imports_nothing_from_another_or_from_tests(path):
    """Each is one command: what two of them need is in the package."""
    tree = ast.parse(path.read_text())
    tops = {module.partition(".")[0] for node in ast.walk(tree) for module in modules_of(node)}
    assert tops & {"tools", "tests", *(other.stem for other in TOOLS.glob("*.py"))} == set()
    assert 'if __name__ == "__main__":' in path.read_text()


def test_a_tool_parses_calls_and_prints():
    """What it does is a suite's, in the package, where types and tests are."""
    lengths = {path.stem: len(path.read_text().splitlines()) for path in TOOLS.glob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 100} == {}


TESTS = ROOT.parent / "tests"
OF_NO_MODULE = {"docs"}  # what the documents show
OF_THE_WHOLE = {"ci_check", "house", "package", "reprs", "wheel"}  # tests of more than a module


def test_tests_mirror_the_package():
    """What tests a module or a package is found under its name."""
    folders = {path.parent.name for path in TESTS.glob("*/__init__.py")}
    assert {name for name in folders - OF_NO_MODULE if not (ROOT / name).is_dir()} == set()
    modules = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
    assert {name for name in modules - OF_THE_WHOLE if not (ROOT / f"{name}.py").is_file()} == set()
    assert modules >= OF_THE_WHOLE


def set_names(tree):
    """The names of functions and classes, and of variables and attributes that are set."""
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


IS_PRIVATE = re.compile(r"_[A-Za-z]\w*").fullmatch
OF_TORCH = {*dir(torch), *dir(torch.nn.Module()), *dir(torch.Tensor)}  # as `_parameters`, which the package sets too


@functools.cache
def private_names():
    return {name for tree in TREES.values() for name in set_names(tree) if IS_PRIVATE(name)} - OF_TORCH


def private_uses(tree):
    """Where code reads a private name of the package, by attribute, import or text (as `monkeypatch.setattr` takes)."""
    own = set(set_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in private_names() - own:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("structprune", "tests"):
            parts = {*node.module.split("."), *(alias.name for alias in node.names)}
            yield from ((node.lineno, f"{node.module}: {name}") for name in parts if IS_PRIVATE(name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            dotted = re.match(r"structprune[\w.]*\._[A-Za-z]", node.value)
            if dotted or node.value in private_names():
                yield node.lineno, node.value


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        ("runner._settle('x')", True),
        ("from structprune.run.runner import _plain", True),
        ("from structprune._before_torch import held", True),
        ("from tests.suites.children import _main", True),
        ("monkeypatch.setattr(runner, '_settle', None)", True),
        ("monkeypatch.setattr('structprune.run.runner._plain', None)", True),
        ("net._parameters", False),  # torch's
        ("self._settle = 1; self._settle", False),  # a name of its own
        ("runner.settle('x'); runner.__dict__; torch._C", False),
    ],
)
def test_what_reads_a_private_name_is_seen(code, uses):
    assert bool(list(private_uses(ast.parse(code)))) == uses


def test_tests_and_tools_read_no_private_name():
    """What they need of the package is public there: they are its users too."""
    here = ROOT.parent
    files = [path for folder in ("tests", "tools") for path in (here / folder).rglob("*.py") if path != Path(__file__)]
    uses = {
        f"{path.relative_to(here)}, line {line}": text
        for path in files
        for line, text in private_uses(ast.parse(path.read_text()))
    }
    assert uses == {}


def test_nothing_else_in_the_package_imports_the_suites():
    """Not even inside a function: they need what structprune does without."""
    suites = "structprune.suites"
    importers = set()
    for name, tree in TREES.items():
        if f"{name}.".startswith(f"{suites}."):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = {alias.name for alias in node.names}
                if isinstance(node, ast.ImportFrom):
                    modules = {f"{origin_of(name, node)}.{module}" for module in modules}
                importers |= {name for module in modules if f"{module}.".startswith(f"{suites}.")}
    assert importers == set()


def modules_of(node):
    """The names of modules in an import statement; of a relative import, none."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def test_no_module_is_over_400_lines():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_no_function_is_over_60_lines():
    nodes = [(name, node) for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    lengths = {f"{name}.{node.name}, line {node.lineno}": node.end_lineno - node.lineno + 1 for name, node in nodes}
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


# Who reads recordings: others get what is in them as data, such as `graph.layers.Layer`.
READERS = ("graph", "ops")
OTHERS = {
    "structprune.export.fixed_sizes": "writes another fx graph of a slim network that is one",
    "structprune.store.hooks": "a partial function's arguments",
}


def looks_into_a_recording(node):
    """Whether an expression reads a recorded pass, or the arguments or the values of one of its nodes."""
    if isinstance(node, ast.Attribute):
        inside = isinstance(node.value, ast.Attribute) and node.value.attr == "recording"
        return node.attr == "captured" or inside
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Attribute):
        return False
    owner = ast.unparse(node.value.value)
    of_node = node.value.attr == "meta" or (node.value.attr == "args" and "inputs" not in owner)
    return of_node and isinstance(node.slice, (ast.Constant, ast.Slice))


@pytest.mark.parametrize(
    ("code", "looks"),
    [
        ("graph.captured", True),
        ("graph.recording.calls", True),
        ("node.args[6]", True),
        ("user.args[1:]", True),
        ("n.meta['val']", True),
        ("Calls(graph.recording)", False),  # handed on whole
        ("batch.inputs.args[0]", False),
        ("args[0]", False),
    ],
)
def test_what_looks_into_a_recording_is_seen(code, looks):
    assert any(looks_into_a_recording(node) for node in ast.walk(ast.parse(code))) == looks


def test_nobody_but_its_readers_looks_into_a_recording():
    readers = tuple(f"structprune.{package}." for package in READERS)
    looks = {
        f"{name}, line {node.lineno}": ast.unparse(node)
        for name, tree in TREES.items()
        if not f"{name}.".startswith(readers) and name not in OTHERS
        for node in ast.walk(tree)
        if looks_into_a_recording(node)
    }
    assert looks == {}


def test_no_module_of_the_graph_imports_another_back_for_its_types():
    deferred = [
        name
        for name, tree in TREES.items()
        if name.startswith("structprune.graph.") and "TYPE_CHECKING" in ast.unparse(tree)
    ]
    assert deferred == []


def public():
    """The public names, and the public methods of those that are classes."""
    for name in sp.__all__:
        value = getattr(sp, name)
        yield pytest.param(value, id=name)
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function) and not method.startswith("_"):
                yield pytest.param(function, id=f"{name}.{method}")


def section(documentation, title):
    """The entries of a section of a docstring, by name, or its text."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", documentation, re.MULTILINE)
    return found.group(1) if found else ""


def named(entries):
    """The names that a section's entries begin with, in order."""
    return re.findall(r"^    (\w+): \S", entries, re.MULTILINE)


@pytest.mark.parametrize("value", public())
def test_public_names_say_what_they_take_give_and_raise(value):
    text = inspect.getdoc(value)
    assert text
    if inspect.isclass(value):
        fields = value.__annotations__ if is_typeddict(value) else inspect.signature(value).parameters
        assert named(section(text, "Attributes")) == list(fields)
        return
    signature = inspect.signature(value)
    parameters = [name for name in signature.parameters if name not in ("self", "cls")]
    assert named(section(text, "Args")) == parameters
    assert bool(section(text, "Returns")) == (signature.return_annotation not in (None, "None"))
    errors = named(section(text, "Raises"))
    assert errors
    assert set(errors) <= {*vars(sp.errors), "ValueError"}


def inner_functions():
    """The functions that any package lists in its `__all__`, each once, by the package that comes first."""
    places = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isfunction(value) and inspect.unwrap(value).__module__ in TREES:
                places.setdefault(value, f"{package}.{name}")
    return [pytest.param(value, id=place) for value, place in places.items()]


def raised(function):
    """The names of the errors that a function's own code raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            yield node.exc.func.id


def inner_methods():
    """The public methods of the classes that any package lists in its `__all__`, but for those that a library calls."""
    places = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for value in (getattr(module, name) for name in getattr(module, "__all__", ())):
            if not inspect.isclass(value) or value.__module__ not in TREES:
                continue
            library = [base for base in value.__mro__ if base.__module__ not in TREES]
            for name, method in vars(value).items():
                method = getattr(method, "__func__", method)
                if not inspect.isfunction(method) or name.startswith("_") or method.__name__ != name:
                    continue  # a field that holds a function is none
                if not any(name in vars(base) for base in library):
                    places.setdefault(method, f"{package}.{value.__name__}.{name}")
    return [pytest.param(method, id=place) for method, place in places.items()]


@pytest.mark.parametrize("method", inner_methods())
def test_methods_between_packages_say_what_they_take_and_give(method):
    text = inspect.getdoc(method)  # of the class that declares it, where this one says nothing of its own
    assert text
    signature = inspect.signature(method)
    parameters = [name for name in signature.parameters if name not in ("self", "cls")]
    assert named(section(text, "Args")) == parameters
    assert bool(section(text, "Returns")) == (signature.return_annotation not in (None, "None"))
    assert set(named(section(text, "Raises"))) <= {*vars(sp.errors), *vars(builtins), "Unsupported"}


@pytest.mark.parametrize("function", inner_functions())
def test_functions_between_packages_say_what_they_take_give_and_raise(function):
    text = inspect.getdoc(function)
    assert text
    signature = inspect.signature(function)
    assert named(section(text, "Args")) == list(signature.parameters)
    assert bool(section(text, "Returns")) == (signature.return_annotation not in (None, "None"))
    errors = set(named(section(text, "Raises")))
    assert set(raised(inspect.unwrap(function))) <= errors
    assert errors <= {*vars(sp.errors), *vars(builtins), "OtherSizeError"}


# What a variable holds has a noun: these say only that it came from somewhere.
NO_NAMES = frozenset(("asked", "found", "given", "made", "said", "say", "seen", "sure", "taken", "told", "wanted"))
# How many each package still has. These numbers may only fall; what is not here has none.
STILL_THERE = {
    "report": 3,
    "run": 1,
}


def variables(tree):
    """(name, line) of each parameter, variable and attribute that is set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


@pytest.mark.parametrize("part", sorted({name.split(".")[1] for name in TREES if "." in name}))
def test_variables_are_named_by_nouns(part):
    trees = {name: tree for name, tree in TREES.items() if name.split(".")[1:2] == [part]}
    participles = [
        f"{name}, line {line}: {variable}"
        for name, tree in trees.items()
        for variable, line in variables(tree)
        if variable in NO_NAMES
    ]
    assert len(participles) <= STILL_THERE.get(part, 0), "\n".join(participles)


def registries():
    """Each registry of names, by the package that registers them."""
    from structprune.criteria import CRITERIA
    from structprune.data import SOURCES
    from structprune.plan import ALLOCATIONS
    from structprune.recipe import RECOVERIES
    from structprune.runtimes import ENGINES
    from structprune.tasks import TASKS
    from structprune.train.method import TRAINING_METHODS

    return {
        "criteria": CRITERIA,
        "data": SOURCES,
        "plan": ALLOCATIONS,
        "recover": RECOVERIES,
        "runtimes": ENGINES,
        "tasks": TASKS,
        "train": TRAINING_METHODS,
    }


def compared(tree):
    """The texts that a module compares something with, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for part in (node.left, *node.comparators):
                for leaf in part.elts if isinstance(part, (ast.Tuple, ast.List, ast.Set)) else [part]:
                    if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                        yield leaf.value, node.lineno


PACKAGES_OF_PYTHON = ("torch", "timm")  # names of packages, where they are compared, not of an engine or a source
NAMED_ON_PURPOSE = {  # by module and text
    ("structprune.first_recipe.task_inference", "segmentation"),  # its spec has a key that no task can do without
    ("structprune.first_recipe.writing", "regression"),  # a comment of the recipe that is written explains its key
    ("structprune.first_recipe.writing", "digits"),  # how many there are to train on, without reading them
}


def test_no_package_compares_a_name_that_another_registers():
    places, all_of_them = {}, registries()
    for name, tree in TREES.items():
        own = all_of_them.get(name.split(".")[1] if "." in name else "", {})  # it may register the same name
        allowed = {*own, *PACKAGES_OF_PYTHON, *(text for module, text in NAMED_ON_PURPOSE if module == name)}
        for text, line in compared(tree):
            for registry in all_of_them.values():
                if registry is not own and text in registry and text not in allowed:
                    places[f"{name}, line {line}"] = f"{registry.kind} {text}"
    assert places == {}


NOT_PLAIN = re.compile(
    r"(?<!there )\bis no (folder|file|number|amount|share|slice|tensor|module|plan|name|mapping|class)\b"
)


def test_messages_say_that_something_is_not_what_it_should_be_as_one_says_it():
    """`x is not a folder`, and not `x is no folder`."""
    texts = {
        f"{name}, line {leaf.lineno}": leaf.value
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        for leaf in ast.walk(node)
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
    }
    assert {place: text for place, text in texts.items() if NOT_PLAIN.search(text)} == {}
