"""Networks that timm does not make, from trace to a training step and a load without the dense network."""

# In the order of docs/outside.md.
from . import torchvision_networks, transformers_networks, other_networks, own_networks  # noqa: F401, I001
from .registry import NETWORKS, PACKAGES

__all__ = ["NETWORKS", "PACKAGES"]
