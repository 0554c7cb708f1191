"""Attributes as JSON: which kinds of values there are, and what a partial may hold.

A value that JSON has stands as it is; any other is an object of one tag, `{"$tuple": [...]}`. What can be changed in
place and is met twice carries an `$id` where it is met first and is a `$ref` after that, so that it is one thing again
(a config that every layer holds, a dict that one layer fills and another reads). `encoding` writes, `decoding` reads.
"""

from __future__ import annotations

import argparse
import enum
import functools
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import pure_functions as pure
from .admission import Admission

SPACES: dict[str, type] = {"$namespace": types.SimpleNamespace, "$arguments": argparse.Namespace}
MAPPINGS: dict[str, Any] = {"$dict": dict, "$ordered_dict": OrderedDict, "$counter": Counter}
SEQUENCES: dict[str, Any] = {"$list": list, "$set": set, "$deque": deque}
FIXED: dict[str, Any] = {"$tuple": tuple, "$frozenset": frozenset, "$size": torch.Size}
PLAIN = (int, float, bool, complex, type(None), torch.dtype, torch.device)
TORCH = {"$dtype": torch.dtype, "$layout": torch.layout, "$memory_format": torch.memory_format}
MUTABLE = (list, dict, set, deque, types.SimpleNamespace, argparse.Namespace)
_CALLING = ("builtins:", "operator:", "collections:")


def bindable(admission: Admission, function: Any, args: Iterable[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a partial may hold these: listed functions and layers take data and what is listed, others numbers only,
    as do Python's own, which call methods of what they are given."""
    values = (*args, *kwargs.values())
    if not admission.listed(function) or (pure.name_of(function) or "").startswith(_CALLING):
        return all(map(_numbers, values))
    return all(_is_data(admission, value) for value in values)


def _is_data(admission: Admission, value: Any) -> bool:
    """Data, or what may itself be given anything."""
    if type(value) in (tuple, list, set, frozenset):
        return all(_is_data(admission, item) for item in value)
    if type(value) is dict:
        return all(_is_data(admission, item) for item in value.values())
    if isinstance(value, functools.partial):
        return admission.listed(value.func)
    data = (*PLAIN, str, Tensor, np.ndarray, torch.Generator, enum.Enum)
    return isinstance(value, data) or admission.listed(value)


def _numbers(value: Any) -> bool:
    return all(map(_numbers, value)) if type(value) in (tuple, list) else isinstance(value, PLAIN)
