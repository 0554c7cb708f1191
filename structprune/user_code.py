"""Code that a user names, `net.py:Net` or `package.module:function`: checked, imported, and found again by its name.

A file is imported as a module of the name that `import` would give it: its stem, or, inside a package (folders with an
`__init__.py`), the dotted name from the package on. So instances of its classes can be saved by name, and loaded
after the same `import` in another process. While it is imported and used to build (`importable`), its folder is first
on the module search path, so that it finds its siblings; afterwards the folder is last.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .messages import files_like, shown, unknown

Tell = Callable[[str], object]
_held: dict[str, dict[Path, str]] = {}  # by module: the file and the siblings that it imports, with their hashes


def to_stderr(line: str) -> None:
    """Says on standard error what is run, where nothing else was given to say it."""
    print(line, file=sys.stderr)


def once(tell: Tell) -> Tell:
    """Tells each line the first time only: what names a file twice runs it once."""
    lines: set[str] = set()

    def tell_once(line: str) -> None:
        if line not in lines:
            lines.add(line)
            tell(line)

    return tell_once


def split(source: str) -> tuple[str, str]:
    """The file or module, and the name in it. Raises ValueError, with the names that a file has."""
    place, colon, name = source.rpartition(":")
    if not colon or not place or not all(part.isidentifier() for part in name.split(".")):
        place = source if not colon else (place if not name else source)
        if place.endswith(".py") and _is_file(place):
            raise ValueError(f"{place} is a file: say what of it to use, {_offers(place)}")
        raise ValueError(f"{shown(source)} is not FILE.py:NAME or PACKAGE.MODULE:NAME")
    if not is_file_name(place) and not all(part.isidentifier() for part in place.split(".")):
        raise ValueError(f"{shown(place)} is neither a .py file nor the name of a module")
    return place, name


def is_file_name(place: str) -> bool:
    """Whether the part before the colon is meant as a file."""
    return place.endswith(".py") or "/" in place or os.sep in place


def check(source: str) -> None:
    """Checks a source as far as possible without running anything. Raises ValueError, in one line.

    Nothing is imported, not even the package of a module.
    """
    place, name = split(source)
    if not is_file_name(place):
        top = place.partition(".")[0]
        if top in sys.stdlib_module_names:
            raise ValueError(f"{source}: {top} is one of Python's own modules, which may not be called from here")
        if top not in sys.modules and _spec(top) is None:
            file = place.replace(".", "/") + ".py"
            hint = f"name its file, {file}:{name}" if _is_file(file) else "install it, or put its folder on PYTHONPATH"
            raise ValueError(f"{source}: there is no module {top}: {hint}")
        return
    check_file(place)
    known = _names_in(place)
    if known is not None and not known.any_other and name.partition(".")[0] not in {*known.names, *known.others}:
        raise ValueError(f"{source}: {unknown('name', name, known.names)}")


def check_file(place: str) -> None:
    """Checks that `import` will find a file by its module name. Raises ValueError, in one line, if it won't."""
    if not _is_file(place):
        raise ValueError(f"there is no file {place}{_near_files(place)}")
    if not place.endswith(".py"):
        raise ValueError(f"{place} is not a .py file")
    module = module_name(Path(place))
    top = module.partition(".")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"{place}: a saved network finds its classes by `import {module}`, which is not a name: rename the file"
        )
    if top in sys.stdlib_module_names or top in ("torch", "timm", "numpy", "structprune", "accelerate"):
        raise ValueError(f"{place}: {top} is the name of another module, which `import` would find: rename the file")


def find(source: str, tell: Tell | None = None) -> Any:
    """Returns what a source names, imported if need be.

    Args:
        source: `FILE.py:NAME` or `PACKAGE.MODULE:NAME`; NAME may have dots, as in `Class.from_config`.
        tell: Gets a line that says which file is run.

    Returns:
        The class, function or other object.

    Raises:
        RecipeError: The name does not exist, or the code raises when it is imported.
    """
    try:
        check(source)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    place, name = split(source)
    target: Any = load(place, tell)
    for part in name.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            names = _public(target)
            raise RecipeError(f"{source}: {unknown('name', name, names)}") from None
        except Exception as error:  # a package that imports its parts when they are asked for
            raise RecipeError(f"{source} can't be imported: {_of(error)}") from error
    return target


def load(place: str, tell: Tell | None = None) -> types.ModuleType:
    """The module that a file or a module's name stands for, imported if need be. Raises RecipeError, in one line."""
    if not is_file_name(place):
        return _load_module(place)
    try:
        check_file(place)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return load_file(Path(place), tell)


def load_file(path: Path, tell: Tell | None = None) -> types.ModuleType:
    """Imports a Python file, unless it was imported before. Raises RecipeError if that fails."""
    name = module_name(path)
    if tell is not None:
        tell(f"runs code of {path}, as the module {name}")
    _check_place(name, path)
    if (module := sys.modules.get(name)) is not None:
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            raise RecipeError(f"{path} uses itself while it is imported: put that under `if __name__ == '__main__'`")
        for file, known in _held.setdefault(name, _hashes(path)).items():
            if not file.is_file() or _hash(file) != known:
                raise RecipeError(f"{file} has changed since it was imported in this process: start a new one")
        return module
    with importable(path):
        _check_siblings(path)
        importlib.invalidate_caches()
        before, hashes = set(sys.modules), _hashes(path)
        try:
            module = importlib.import_module(name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the file raises, SystemExit too
            for added in set(sys.modules) - before:  # half of it may be there
                if added.partition(".")[0] == name.partition(".")[0]:
                    sys.modules.pop(added, None)
            raise RecipeError(f"{path} can't be imported: {_of(error, path)}") from error
    _check_place(name, path)
    _held[name] = hashes
    return module


@contextlib.contextmanager
def importable(path: Path) -> Iterator[None]:
    """Puts the folders of a file and of its package first on the module search path; afterwards they are last."""
    folders = list(dict.fromkeys([str(_root(path)), os.path.dirname(os.path.abspath(path))]))
    kept = list(sys.path)
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)
            if folder not in kept and folder not in sys.path:
                sys.path.append(folder)


def module_name(path: Path) -> str:
    """The name by which `import` finds a file once the folder of its outermost package is on the search path."""
    whole = Path(os.path.abspath(path))  # a link has the name that it is imported by
    return ".".join(whole.relative_to(_root(path)).with_suffix("").parts)


def files_of(source: str) -> list[Path]:
    """The files whose content decides what a file source makes: itself, and what it imports of its own folder.

    They are read off the text, without running it; none for a module of a package.
    """
    place, _ = split(source)
    if not is_file_name(place):
        return []
    whole = Path(place).resolve()
    return sorted({whole, *_siblings(whole, {}).values()})


def files_with(file: Path) -> list[Path]:
    """The user's files that were loaded in this process together with this one: its classes may depend on them."""
    whole = file.resolve()
    return sorted({other for files in _held.values() if whole in files for other in files})


def code_of(module: str) -> str:
    """A text that changes when the code of an imported module does: sizes and times of all files of its package or, if
    it is in none, the texts of its file and of those that it imports beside it."""
    top = sys.modules.get(module.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    if folders:
        stats = {str(path): path.stat() for folder in folders for path in sorted(folder.rglob("*.py"))}
        return repr([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()])
    file = str(getattr(top, "__file__", None) or "")
    if not _is_file(file) or not file.endswith(".py"):
        return ""
    files = dict.fromkeys([*files_of(f"{file}:any"), *files_with(Path(file))])
    return "\0".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def registered_code(records: Iterable[Any]) -> str:
    """SHA-256 of the code of functions and classes in or among records that are not of this package; "" without any."""
    texts: set[str] = set()
    for record in records:
        parts = [record] if isinstance(record, types.FunctionType) else [type(record), *vars(record).values()]
        for part in parts:
            code = getattr(part, "func", part)  # of a partial
            if isinstance(code, (types.FunctionType, type)) and not _is_ours(code.__module__ or ""):
                texts.add(code_of(code.__module__) or _typed_in_a_shell(code))
    return hashlib.sha256("\0".join(sorted(texts)).encode()).hexdigest() if texts else ""


def _typed_in_a_shell(code: types.FunctionType | type) -> str:
    functions = [code] if isinstance(code, types.FunctionType) else [*vars(code).values()]
    return repr([(f.__code__.co_code, f.__code__.co_consts) for f in functions if isinstance(f, types.FunctionType)])


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _hashes(path: Path) -> dict[Path, str]:
    return {file: _hash(file) for file in files_of(f"{path}:any")}


def _root(path: Path) -> Path:
    folder = Path(os.path.abspath(path)).parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def _load_module(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise RecipeError(f"the module {name} can't be imported: {_of(error)}") from error


def _check_place(name: str, path: Path) -> None:
    """Raises RecipeError if another file is imported under the name already: its classes would be found instead."""
    module = sys.modules.get(name)
    held = getattr(module, "__file__", None)
    if module is not None and (held is None or Path(held).resolve() != path.resolve()):
        raise RecipeError(
            f"{path} would be the module {name}, and that is {held or 'built in'} here: rename the file, or use it in "
            "a process of its own"
        )


def _check_siblings(path: Path) -> None:
    """Raises RecipeError if the file would import a sibling and get a module from elsewhere."""
    for name, file in _siblings(path.resolve(), {}).items():
        _check_place(name, file)


def _siblings(path: Path, files: dict[str, Path]) -> dict[str, Path]:
    """The files beside `path`, or in its package, that it and they import, by module."""
    for folder, name in _imports(path):
        if _is_ours(name):
            continue  # where a clone of this package lies beside the file
        for place in dict.fromkeys([folder] if folder else [path.parent, _root(path)]):
            inner = place.joinpath(*name.split("."))
            for file in (inner.with_suffix(".py"), inner / "__init__.py"):
                known = module_name(file) if folder else name
                if file.is_file() and known not in files and file.resolve() != path:
                    files[known] = file.resolve()
                    _siblings(file.resolve(), files)
    return files


def _imports(path: Path) -> set[tuple[Path | None, str]]:
    """The modules that a file's text imports, anywhere in it, and for relative imports the folder that they are in."""
    tree = _tree(path)
    names: set[tuple[Path | None, str]] = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            names.update((None, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = path.joinpath(*[".."] * node.level).resolve() if node.level else None
            head = [node.module] if node.module else []
            names.update((folder, name) for name in (*head, *(".".join([*head, a.name]) for a in node.names)))
    return {(folder, name) for folder, name in names if all(part.isidentifier() for part in name.split("."))}


class _Names:
    """The names that a file's text defines at its top; `any_other` if it may define more."""

    def __init__(self, tree: ast.Module) -> None:
        self.names: list[str] = []  # of classes and functions
        self.others: set[str] = set()
        self.any_other = False
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                self.names.append(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self.others.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
                self.any_other |= "*" in self.others
            elif not isinstance(node, ast.Expr):
                self.any_other = True


def _names_in(place: str) -> _Names | None:
    tree = _tree(Path(place))
    return None if tree is None else _Names(tree)


def _offers(place: str) -> str:
    """For example: `such as net.py:Net`."""
    known = _names_in(place)
    names = [name for name in known.names if not name.startswith("_")] if known else []
    return f"such as {' or '.join(f'{place}:{name}' for name in names[-3:])}" if names else f"as {place}:NAME"


def _tree(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # which importing it says better
        return None


def _near_files(place: str) -> str:
    near = files_like(Path(place), "*.py")
    return f": did you mean one of {', '.join(near[:6])}?" if near else ""


def _public(holder: Any) -> list[str]:
    """Names to suggest: the classes and functions of a module, or what a class defines."""
    names = [name for name in dir(holder) if not name.startswith("_")]
    if not isinstance(holder, types.ModuleType):
        return names
    top = holder.__name__.partition(".")[0]
    own = [n for n in names if str(getattr(vars(holder).get(n), "__module__", "")).partition(".")[0] == top]
    return own or names


def _is_file(place: str) -> bool:
    try:
        return Path(place).is_file()
    except (OSError, ValueError):
        return False


def _spec(top: str) -> Any:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _of(error: BaseException, path: Path | None = None) -> str:
    """An exception in one line, with the line of the user's file where it came from."""
    if isinstance(error, SystemExit):
        return "it ends the process: put what it does under `if __name__ == '__main__'`"
    text = (str(error).strip().splitlines() or [""])[0]
    line = ""
    if path is not None and not isinstance(error, SyntaxError):
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == os.path.abspath(path)]
        line = f" (line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{line}" if text else f"{type(error).__name__}{line}"
