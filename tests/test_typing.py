"""The names that type checkers know are those that come with the package."""

from collections.abc import Mapping
from typing import get_args, get_type_hints

import pytest

from structprune import typing
from structprune.criteria import COMBINE, CRITERIA, NEEDS
from structprune.graph.tracing import FORMS
from structprune.plan import ALLOCATIONS
from structprune.recipe.recovery import RECOVERIES


@pytest.mark.parametrize(
    ("names", "registry"),
    [
        (typing.CriterionName, CRITERIA),
        (typing.AllocationName, ALLOCATIONS),
        (typing.Combination, COMBINE),
        (typing.Need, NEEDS),
        (typing.Form, FORMS),
        (typing.RecoveryName, RECOVERIES),
    ],
)
def test_names_are_those_of_the_registry(names, registry):
    own = {name for name in registry if is_own(registry, name)}
    assert set(get_args(names)) == own


def is_own(registry, name):
    """Whether what is registered comes with the package, and not from another test."""
    entry = registry[name] if isinstance(registry, Mapping) else None
    function = getattr(entry, "function", entry)
    return getattr(function, "__module__", "structprune.").startswith("structprune.")


@pytest.mark.parametrize("step", [typing.Means, typing.LeastSquares, typing.BatchNorm])
def test_options_of_recoveries_are_those_of_recipes(step):
    (method,) = get_args(get_type_hints(step)["method"])
    assert set(get_type_hints(step)) == set(RECOVERIES[method].spec.model_fields)
