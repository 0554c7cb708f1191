"""The packages that only a part of structprune needs: which extra brings them, and one line where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import RecipeError

# By extra: the modules that code imports or reads files of, and the packages that bring them (see pyproject.toml).
EXTRAS: dict[str, dict[str, str]] = {
    "compare": {"torch_pruning": "torch-pruning", "matplotlib": "matplotlib"},
    "detection": {"pycocotools": "pycocotools"},
    "openvino": {"openvino": "openvino"},
    "ray": {"ray": "ray"},
    "report": {"matplotlib": "matplotlib"},
    "samples": {"matplotlib": "matplotlib", "mlxtend": "mlxtend", "skimage": "scikit-image"},
}


def lacking(what: str, extra: str, *modules: str) -> str:
    """Says what is not installed of an extra. Nothing is imported for it.

    Args:
        what: What needs it, such as `a sweep`.
        extra: The extra's name.
        modules: Those of its modules that are needed; by default all.

    Returns:
        A line that names the packages and how to get them; empty where all are there.
    """
    packages = EXTRAS[extra]
    missing = [packages[module] for module in modules or packages if find_spec(module) is None]
    if not missing:
        return ""
    return f"{what} needs {' and '.join(missing)}: pip install 'structprune[{extra}]'"


def need(what: str, extra: str, *modules: str) -> None:
    """Stops where something of an extra is not installed.

    Args:
        what: What needs it, such as `a sweep`.
        extra: The extra's name.
        modules: Those of its modules that are needed; by default all.

    Raises:
        RecipeError: A package is missing; the message says how to get it.
    """
    if line := lacking(what, extra, *modules):
        raise RecipeError(line)
