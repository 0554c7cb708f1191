"""All is in pyproject.toml, but that the recipes, which lie beside the package, go into the wheel inside of it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """Copies recipes/ to structprune/recipes, studies with it; an editable installation finds them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "structprune", "recipes")
            shutil.copytree("recipes", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": WithRecipes})
