"""Which stage of a network a layer is in, by the names of all layers: what a long page folds by.

Enters module paths; leaves a name of a stage for each. It knows nothing of graphs: a stage is a common prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALL = 6  # as many layers are not worth folding
DEEPEST = 4


def stages_of(names: Sequence[str]) -> list[str]:
    """The stage of each layer: its first name, or longer where one holds more than half of the layers.

    Args:
        names: Module paths, such as `blocks.3.1.conv`.

    Returns:
        As many prefixes of them, such as `blocks.3`.
    """
    stages = [_prefix(name, 1) for name in names]
    for depth in range(2, DEEPEST + 1):
        for stage in dict.fromkeys(stages):
            inside = [name for name, other in zip(names, stages, strict=True) if other == stage]
            parts = {_prefix(name, depth) for name in inside}
            if len(inside) > SMALL and 2 * len(inside) > len(names) and 1.5 * len(parts) <= len(inside):
                stages = [
                    _prefix(name, depth) if other == stage else other for name, other in zip(names, stages, strict=True)
                ]
    return stages


def is_worth_folding(stages: Sequence[str]) -> bool:
    """Whether stages are several, and fewer than the layers by a third.

    Args:
        stages: That of each layer.

    Returns:
        Whether a page should fold by them.
    """
    return 1 < len(set(stages)) <= len(stages) / 1.5


def folded(names: Sequence[str]) -> dict[str, list[int]]:
    """The layers of each stage, as a long page shows them.

    Args:
        names: Module paths.

    Returns:
        The places of a stage's layers in `names`, by the stage's name; one stage without a name where it is not worth
        folding by several.
    """
    stages = stages_of(names)
    if not is_worth_folding(stages):
        return {"": list(range(len(names)))}
    places: dict[str, list[int]] = {}
    for index, stage in enumerate(stages):
        places.setdefault(stage, []).append(index)
    return places


def _prefix(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])
