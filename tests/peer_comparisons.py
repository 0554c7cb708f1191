"""Records of a recipe by structprune and by torch-pruning, as `structprune compare` writes them."""

from structprune.compare import Comparison
from structprune.runtimes import environment


def row(network, tool, speedup, final, **more):
    return {
        "network": network,
        "tool": tool,
        "macs": int(1e6 / speedup),
        "cut": speedup,
        "params": 1000,
        "gate": {"passed": True, "max_rel": 0.0},
        "quality": {"pruned": 0.5, "final": final},
        "seconds": 1.0,
        "peak_bytes": 2**20,
        "ms": 1 / speedup,
        "speedup": speedup,
        "ci95": [speedup - 0.02, speedup + 0.02],
        "efficiency": 1.0,
        "timing": [],
        **more,
    }


OURS, THEIRS = row("structprune", "structprune", 3.0, 0.95), row("torch-pruning", "torch-pruning", 2.0, 0.94)


def comparison(*rows, **more):
    data = {
        "schema": "structprune.compare/1",
        "model": "net",
        "criterion": "l1",
        "allocation": "uniform",
        "budget": {"macs": 0.5},
        "kept_by": "l1",
        "runtime": "onnxruntime",
        "metric": "accuracy",
        "images": 400,
        "dense": {"macs": 10**6, "quality": 0.96},
        "rows": list(rows),
        "widths": [{"name": "one", "channels": 16, "kept": {"structprune": 8, "torch-pruning": 6}}],
        "notes": [],
        "environment": environment().to_data(),
    }
    return Comparison.model_validate({**data, **more})
