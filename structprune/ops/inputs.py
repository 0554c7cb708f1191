"""The arguments of a forward call, and the tensors of what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import ModelError
from ..modules import tensors


@dataclass(frozen=True)
class Inputs:
    """The arguments of one forward call: a tensor, a tuple of arguments or a dict of keyword arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example: Any) -> Inputs:
        """Reads a model's inputs as a user gives them.

        Args:
            example: a tensor, a tuple of arguments, a dict of keyword arguments, or Inputs

        Returns:
            The arguments of a call.

        Raises:
            ModelError: it is nothing that a model can be called with
        """
        if isinstance(example, Inputs):
            return example
        if isinstance(example, Mapping):
            return cls((), dict(example))
        if isinstance(example, (tuple, list)):
            return cls(tuple(example), {})
        if isinstance(example, Tensor):
            return cls((example,), {})
        raise ModelError(
            f"example_inputs is a {type(example).__name__}; give a tensor, a tuple of arguments or a dict of "
            "keyword arguments"
        )

    def flat(self) -> list[Any]:
        """Lists all leaves, of nested arguments too.

        Returns:
            The leaves, positional arguments first.
        """
        return pytree.tree_flatten((self.args, self.kwargs))[0]

    def rebuild(self, flat: list[Any]) -> Inputs:
        """Puts other leaves in the place of these.

        Args:
            flat: as many leaves as `flat()` gives

        Returns:
            Arguments of the same structure.
        """
        _, spec = pytree.tree_flatten((self.args, self.kwargs))
        return Inputs(*pytree.tree_unflatten(flat, spec))

    def map(self, function: Any) -> Inputs:
        """Applies a function to every tensor.

        Args:
            function: takes a tensor

        Returns:
            The same arguments with its results.
        """
        return self.rebuild([function(x) if isinstance(x, Tensor) else x for x in self.flat()])

    def beside(self, model: nn.Module) -> Inputs:
        """Moves the arguments to where a model is.

        Args:
            model: its parameters and buffers name the device

        Returns:
            The same arguments on the device of its tensors; as they are if it has several.
        """
        devices = {tensor.device for tensor in tensors(model).values()} - {torch.device("meta")}
        return self.map(lambda x: x if x.is_meta else x.to(*devices)) if len(devices) == 1 else self

    def names(self, model: nn.Module) -> list[str]:
        """Names each leaf, by forward's signature where it has one.

        Args:
            model: the network that the arguments are for

        Returns:
            One name for each leaf of `flat()`.
        """
        try:
            parameters = list(inspect.signature(model.forward).parameters)
        except (TypeError, ValueError):
            parameters = []
        names: list[str] = []
        for position, value in enumerate(self.args):
            stem = parameters[position] if position < len(parameters) else f"input_{position}"
            leaves = len(pytree.tree_flatten(value)[0])
            names += [stem] if leaves == 1 else [f"{stem}_{i}" for i in range(leaves)]
        for key, value in self.kwargs.items():
            leaves = len(pytree.tree_flatten(value)[0])
            names += [key] if leaves == 1 else [f"{key}_{i}" for i in range(leaves)]
        return names

    def call(self, model: nn.Module) -> Any:
        """Calls a model with these arguments.

        Args:
            model: the network

        Returns:
            What it returns.
        """
        return model(*self.args, **self.kwargs)

    def call_under(self, watcher: AbstractContextManager[Any], model: nn.Module) -> Any:
        """Calls a model with these arguments while a context is active.

        Args:
            watcher: the context, such as an `OpMode`
            model: the network

        Returns:
            What it returns.
        """
        with watcher:
            return self.call(model)


def outputs(value: Any) -> list[Tensor]:
    """Finds the tensors of a model's output, in whatever tuples, lists and dicts they are nested.

    Args:
        value: What forward returned.

    Returns:
        The tensors, in order.

    Raises:
        ModelError: The output can't be looked into: a tensor hidden in it would go unchecked.
    """
    leaves = pytree.tree_flatten(value)[0]
    for leaf in leaves:
        if not isinstance(leaf, (Tensor, bool, int, float, complex, str, type(None))):
            raise ModelError(
                f"forward returns a {type(leaf).__name__}, which can't be looked into: return tensors in tuples, lists "
                "or dicts, or wrap the model in a module that does"
            )
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
