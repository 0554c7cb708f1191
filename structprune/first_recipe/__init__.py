"""`structprune init`: a first recipe for a model and, if there is one, a folder of images.

In goes what a command line names; out comes a short commented YAML file that runs as it is, or one line that says what
does not fit. `inspection` inspects the model and the folder, `own_data` a user's datasets, `task_inference` infers the
task, and `writing` writes the recipe. Nothing here runs a stage.
"""

from .inspection import Folder, Network, look_at_folder, look_at_model
from .writing import FirstRecipe, first_recipe, write_recipe

__all__ = ["FirstRecipe", "Folder", "Network", "first_recipe", "look_at_folder", "look_at_model", "write_recipe"]
