"""Changes of a network that keep its function, made before it is cut: what they change is then cut as any other is."""

from .rotation import Rotation, rotate

__all__ = ["Rotation", "rotate"]
