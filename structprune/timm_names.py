"""The names of timm that a recipe may use: its models and its optimisers."""

from __future__ import annotations

import functools


@functools.cache
def architectures() -> frozenset[str]:
    """timm's models. The first call takes seconds, as it imports timm."""
    import timm

    return frozenset(str(name) for name in timm.list_models())


def models_like(pattern: str) -> list[str]:
    """timm's models whose names match a pattern with * and ?.

    Args:
        pattern: Such as `resnet*`.

    Returns:
        The names; none where nothing matches.
    """
    import timm

    return [str(name) for name in timm.list_models(pattern)]


@functools.cache
def optimizers() -> frozenset[str]:
    """timm's optimisers."""
    import timm.optim

    return frozenset(str(name) for name in timm.optim.list_optimizers())
