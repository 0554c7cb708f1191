"""Imports `networks` as code of a user's own: under the name `suite_networks`, outside of this package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

USERS = "suite_networks"
_FOLDER = Path(__file__).parent / "networks"


def users(name: str) -> ModuleType:
    """A module of `networks`.

    Args:
        name: Its name there, for example `random_network` or `blocks.gates`.

    Returns:
        The module `suite_networks.NAME`, the same one each time. A process that loads a saved network of its classes
        calls this first, as a user imports the code of theirs.
    """
    if USERS not in sys.modules:
        init = _FOLDER / "__init__.py"
        spec = importlib.util.spec_from_file_location(USERS, init, submodule_search_locations=[str(_FOLDER)])
        assert spec is not None
        assert spec.loader is not None
        sys.modules[USERS] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[USERS])
    return importlib.import_module(f"{USERS}.{name}")
