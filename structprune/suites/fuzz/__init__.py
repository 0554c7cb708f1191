"""Random networks and plans through structprune, and through torch-pruning beside it."""
