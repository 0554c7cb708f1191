"""structprune and torch-pruning side by side: the same networks, random weights and budget of MACs."""
