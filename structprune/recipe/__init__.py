"""Recipes: YAML files checked by pydantic. Mistakes are reported before any work, all of them at once.

Enters: a file, or the data in one, and overrides. Leaves: a `Recipe`, or a RecipeError with a line for each mistake.
`specs`, `pruning` and `recovery` define a recipe, `known_names` has the names that it may use, `reading` reads and
checks one, `mistakes` writes the messages. There are two steps: first the recipe's text, without importing torch; then
what is here to run it.
"""

from ..data.spec import DigitsSpec, ImagesSpec, Mnist5kSpec
from ..models import TimmSpec as ModelSpec  # its old name
from ..train.spec import TrainSpec
from .pruning import QUALITY, BudgetSpec, PruneSpec, ScanSpec, SearchSpec
from .reading import check_recipe, check_text, read_recipe, read_yaml, recipe_data, set_key
from .recovery import RECOVERIES, RecoverySpec
from .specs import AlsoSpec, BenchSpec, ExportSpec, Recipe, RuntimeSpec

__all__ = [
    "QUALITY",
    "RECOVERIES",
    "AlsoSpec",
    "BenchSpec",
    "BudgetSpec",
    "DigitsSpec",
    "ExportSpec",
    "ImagesSpec",
    "Mnist5kSpec",
    "ModelSpec",
    "PruneSpec",
    "Recipe",
    "RecoverySpec",
    "RuntimeSpec",
    "ScanSpec",
    "SearchSpec",
    "TrainSpec",
    "check_recipe",
    "check_text",
    "read_recipe",
    "read_yaml",
    "recipe_data",
    "set_key",
]
