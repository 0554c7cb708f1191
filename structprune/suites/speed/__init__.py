"""How much faster half of the MACs makes a network in onnxruntime: structprune and torch-pruning side by side."""
