"""Text that is rendered, with labels, and what of it networks have found and read.

Enters a seed, leaves pages and lines as pixels beside their words; enters a network's output, leaves boxes and strings.
Nothing here knows of recipes, plans or tasks.
"""
