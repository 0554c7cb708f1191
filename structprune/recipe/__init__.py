"""Recipes: YAML files checked by pydantic. What can be known to be wrong is said before any work, and all at once.

Enters: a file, or the data in one, and overrides. Leaves: a `Recipe`, or a RecipeError with a line for each mistake.
`specs` and `recovery` say what a recipe is and `known` what it may name, `reading` reads and checks one, `mistakes`
puts what is wrong into words. Two steps: what stands in the recipe, known without importing torch; then what is here to
run it.
"""

from ..data.spec import DigitsSpec, ImagesSpec
from ..models import TimmSpec as ModelSpec  # its old name
from ..train.spec import TrainSpec
from .reading import check_recipe, check_text, read_recipe, read_yaml
from .recovery import (
    METHODS,
    BatchNormSpec,
    LeastSquaresSpec,
    MeansSpec,
    RecoverSpec,
    check_order,
    needs_images,
)
from .specs import (
    QUALITY,
    AlsoSpec,
    BenchSpec,
    BudgetSpec,
    ExportSpec,
    PruneSpec,
    Recipe,
    RuntimeSpec,
    SearchSpec,
)

__all__ = [
    "METHODS",
    "QUALITY",
    "AlsoSpec",
    "BatchNormSpec",
    "BenchSpec",
    "BudgetSpec",
    "DigitsSpec",
    "ExportSpec",
    "ImagesSpec",
    "LeastSquaresSpec",
    "MeansSpec",
    "ModelSpec",
    "PruneSpec",
    "Recipe",
    "RecoverSpec",
    "RuntimeSpec",
    "SearchSpec",
    "TrainSpec",
    "check_order",
    "check_recipe",
    "check_text",
    "needs_images",
    "read_recipe",
    "read_yaml",
]
