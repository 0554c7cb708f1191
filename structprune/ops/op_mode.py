"""The mode that sees every ATen op before autograd takes composite ones apart, and the names of ops."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..modules import plain_transformers
from .answers import READERS
from .provenance import plain
from .slices import takes_all, with_tensors


class OpMode(SchemaCheckMode):
    """Calls `self.call(op, args, kwargs)` for each ATen op, composite ones whole.

    Such a mode lives at the pre-dispatch key, where torch admits only subclasses of three of its own modes.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that keeps torch.compile out costs more than the call

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self._open = ExitStack()

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an op, or does something else in its place.

        Args:
            op: the ATen op
            args: its arguments
            kwargs: its keyword arguments

        Returns:
            What the code gets for it.
        """
        raise NotImplementedError

    def read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answers a torch function that reads something of a tensor.

        Args:
            func: the function
            args: its arguments
            kwargs: its keyword arguments

        Returns:
            What the code gets, or NotImplemented for what PyTorch gives.
        """
        return NotImplemented

    def remembered(self, value: Any) -> Any:
        """Sees the number that `x.item()` gives to the code.

        Args:
            value: the number

        Returns:
            The number that the code gets.
        """
        return value

    def indexed(self, tensor: Tensor, index: Any) -> tuple[Tensor, Any]:
        """Sees a tensor that the code is about to read from or write to at an index.

        Args:
            tensor: the tensor
            index: as between its brackets

        Returns:
            The tensor and the index to use.
        """
        return tensor, index

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C._DisablePythonDispatcher():
            return self.call(func, args, kwargs or {})

    def __enter__(self) -> Any:
        self.torch_call = _TorchCall(self)
        self._open.enter_context(plain_transformers())
        self._open.enter_context(enable_python_dispatcher())
        super().__enter__()
        self._open.callback(super().__exit__, None, None, None)
        self._open.enter_context(self.torch_call)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()
        del self.torch_call  # which knows this mode: what the mode holds would live on until Python looks for cycles


_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]


_SIZES = frozenset([_SHAPE, Tensor.size, Tensor.__len__, Tensor.numel, Tensor.nelement])


class _TorchCall(TorchFunctionMode):
    """Keeps the arguments of the torch function that runs now."""

    def __init__(self, mode: OpMode) -> None:
        self.arguments: Any = ()
        self._mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            written = [self._as_tensor(value, args[0].dtype) for value in args[2:]]  # before the index, as torch does
            tensor, index = self._mode.indexed(args[0], with_tensors(args[1]))
            if func is Tensor.__getitem__ and tensor is not args[0] and takes_all(index):
                return tensor  # or torch would call `alias`, which it does not where it takes the slices itself
            args = (tensor, index, *written)
        if func in _SIZES or func in READERS:
            value = self._mode.read(func, args, kwargs or {})
            if value is not NotImplemented:
                return value
        if (
            func is Tensor.contiguous
        ):  # which does not call the op for what is contiguous, as it may be at one size only
            func = torch.ops.aten.contiguous.default
        if func is not F.multi_head_attention_forward:  # whose numbers are none of those that its ops get
            self.arguments = (args, kwargs)
        try:
            value = func(*args, **(kwargs or {}))
        finally:
            self.arguments = ()
        return self._mode.remembered(value) if func is Tensor.item else value

    def _as_tensor(self, value: Any, dtype: torch.dtype) -> Any:
        """A number that is to be written, as a tensor: made by the same call wherever the tensors are."""
        if not isinstance(value, (int, float, complex)):
            return value
        self.arguments = ((value,), {})
        return torch.ops.aten.scalar_tensor.default(plain(value), dtype=dtype)


def op_name(target: Any) -> str:
    """Names an ATen op as the table of rules does: without overload, mark of the in-place form and `aten::`.

    Args:
        target: The op, or another function.

    Returns:
        The name; of another function its own.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__name__", str(target))
    namespace, name = target._schema.name.split("::")
    if name.endswith("_") and not name.startswith("__"):
        name = name[:-1]
    return name if namespace == "aten" else f"{namespace}::{name}"
