"""Layers of torch whose kernels trust the sizes that they are given: with weights of other shapes they read beyond
them. An LSTM on the CPU (oneDNN) and weight normalisation do; convolutions, products, norms and embeddings check.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from ..errors import StoreError

FLAT = {"_flat_weights", "_flat_weight_refs"}
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def check(module: nn.Module, path: str) -> None:
    """Raises StoreError if a layer's weights do not have the shapes that its sizes require."""
    where = path or "the model"
    if isinstance(module, nn.RNNBase):
        _check_recurrent(module, where)
    elif isinstance(module, parametrize.ParametrizationList) and len(module):
        first = module._modules["0"]
        if isinstance(first, parametrizations._WeightNorm):
            g, v = (module._parameters.get(f"original{i}") for i in range(2))
            if g is None or v is None:
                raise StoreError(f"{where} normalises a weight that it does not have")
            check_weight_norm(g, v, first.dim)


def check_place(cls: type, parent: nn.Module | None, path: str) -> None:
    """A normalisation of weights stands first in a list of parametrisations, where its weights are known."""
    first = isinstance(parent, parametrize.ParametrizationList) and path.rpartition(".")[2] == "0"
    if issubclass(cls, parametrizations._WeightNorm) and not first:
        raise StoreError(f"plan.json puts a normalisation of weights at {path}, where there are none")


def check_weight_norm(g: Tensor, v: Tensor, dim: Any) -> None:
    """`g` must have the length of each of `v`'s slices along `dim`."""
    if type(dim) is not int or not -1 <= dim < v.dim():
        raise StoreError(f"a weight of shape {tuple(v.shape)} can't be normalised along {dim!r}")
    expected = tuple(size if axis == dim else 1 for axis, size in enumerate(v.shape))
    if dim in (0, v.dim() - 1) and tuple(g.shape) != expected:  # other kernels check
        raise StoreError(f"a normalised weight of shape {tuple(v.shape)} has lengths of shape {tuple(g.shape)}")


def _check_recurrent(rnn: nn.RNNBase, where: str) -> None:
    numbers = [rnn.input_size, rnn.hidden_size, rnn.num_layers, rnn.proj_size]
    many = any(type(n) is not int or n < 0 for n in numbers) or rnn.num_layers > len(rnn._parameters)
    if rnn.mode not in _GATES or many:
        raise StoreError(f"{where} is a recurrent layer of mode {rnn.mode!r} and sizes {numbers}")
    names, stored = _names(rnn), [_stored(rnn, name) for name in _names(rnn)]
    if names != rnn._flat_weights_names or any(tensor is None for tensor in stored):
        raise StoreError(f"{where} is a recurrent layer whose weights are not its own parameters")
    for name, tensor in zip(names, stored, strict=True):
        shape = _shape(rnn, name)
        if tuple(tensor.shape) != shape:  # type: ignore[union-attr]
            raise StoreError(f"{where}.{name} is {tuple(tensor.shape)}, and {type(rnn).__name__} makes it {shape}")  # type: ignore[union-attr]


def _stored(rnn: nn.RNNBase, name: str) -> Tensor | None:
    """The parameter, or the one that a hook of torch's computes it from."""
    for key in (name, f"{name}_v", f"{name}_orig"):
        tensor = rnn._parameters.get(key)
        if tensor is not None:
            return tensor
    return None


def _names(rnn: nn.RNNBase) -> list[str]:
    kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if rnn.bias else [])]
    kinds += ["weight_hr"] if rnn.proj_size else []
    ends = ["", "_reverse"] if rnn.bidirectional else [""]
    return [f"{kind}_l{layer}{end}" for layer in range(rnn.num_layers) for end in ends for kind in kinds]


def _shape(rnn: nn.RNNBase, name: str) -> tuple[int, ...]:
    rows, out = _GATES[rnn.mode] * rnn.hidden_size, rnn.proj_size or rnn.hidden_size
    if name.startswith("bias"):
        return (rows,)
    if name.startswith("weight_hr"):
        return (rnn.proj_size, rnn.hidden_size)
    if name.startswith("weight_hh"):
        return (rows, out)
    first = name.removesuffix("_reverse").endswith("_l0")
    return (rows, rnn.input_size if first else out * (2 if rnn.bidirectional else 1))


def connect(rnn: nn.RNNBase) -> None:
    """Sets up the list of weights that a recurrent layer hands to its kernel."""
    weights = [rnn._parameters.get(name, rnn.__dict__.get(name)) for name in _names(rnn)]
    rnn.__dict__["_flat_weights"] = weights
    rnn.__dict__["_flat_weight_refs"] = [None if w is None else weakref.ref(w) for w in weights]
