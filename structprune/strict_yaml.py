"""YAML from files that anyone may have written: safe, strict, and bounded in size, depth and amount.

Enters text, leaves plain data or a ValueError of one line. It makes only YAML's own plain types (no tag runs
code); a key that comes twice, a key that is not text and an anchor that expands to too much are refused. It
knows nothing of recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from .messages import shown

MAX_BYTES = 256 * 2**10
MAX_VALUES = 50_000
MAX_DEPTH = 50
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it


def read(path: Path) -> Any:
    """The data that a file holds. Raises OSError, or ValueError as `parse` does."""
    with path.open("rb") as file:
        return parse(file.read(4 * MAX_BYTES).decode("utf-8"))


def parse(text: str) -> Any:
    """The data that `text` holds. Raises ValueError, which says what is wrong and where that is known."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"{len(text):,} characters, over the limit of {MAX_BYTES:,}")
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError, KeyError, RecursionError) as error:
        # yaml's own constructors raise more than YAMLError, for 2001-99-99 and `!!int x`
        raise ValueError(" ".join(str(error).split())[:500] or type(error).__name__) from None


def _check_depth(text: str) -> None:
    """Checks the depth before the text is parsed, as parsing is recursive."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values")


def _check(root: Node) -> None:
    """Checks the size of the expanded document: what an alias repeats counts each time."""
    count, waiting = 0, [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(f"aliases that make more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} levels")
        if isinstance(node, MappingNode):
            _check_keys(node)
            waiting += [(value, depth + 1) for _, value in node.value]
        elif not isinstance(node, ScalarNode):
            waiting += [(value, depth + 1) for value in node.value]


def _check_keys(node: MappingNode) -> None:
    keys = set()
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        line = key.start_mark.line + 1
        if key.tag != "tag:yaml.org,2002:str" or not isinstance(key, ScalarNode):
            value = shown(key.value) if isinstance(key, ScalarNode) else "a list or mapping"
            raise ValueError(f"line {line}: the key {value} is not text: write it in quotes")
        if key.value in keys:
            raise ValueError(f"line {line}: the key {shown(key.value)} comes twice")
        keys.add(key.value)
