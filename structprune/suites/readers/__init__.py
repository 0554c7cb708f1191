"""Changed files through the readers of plans, saved networks and recipes."""
