"""From the dense network to the slim one: seconds that it takes structprune and torch-pruning, side by side."""
