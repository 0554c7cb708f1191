"""The recipes of the repository."""

from pathlib import Path

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
(QUICKSTART,) = (path for path in RECIPES if path.stem == "quickstart")
