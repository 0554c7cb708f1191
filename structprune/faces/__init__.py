"""Windows with and without faces, for judging a face detector's networks without internet.

Enters a seed, leaves pixels and labels. Nothing here knows of recipes, plans or tasks.
"""
