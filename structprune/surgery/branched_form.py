"""A graph form with several paths, as the network's code branches on sizes: it takes the first that fits its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from torch.fx.graph_module import _forward_from_src

from ..errors import OtherSizeError

_PATHS = "structprune_paths"  # in `meta`, which copies keep


class Forked(fx.GraphModule):
    """An `fx.GraphModule` with further graphs over the same parameters."""

    def recompile(self) -> Any:
        code = super().recompile()
        first = type(self).forward

        def forward(self: Forked, *args: Any, **kwargs: Any) -> Any:
            try:
                return first(self, *args, **kwargs)
            except OtherSizeError as refusal:
                for path in self._others():
                    try:
                        return path(self, *args, **kwargs)
                    except OtherSizeError:
                        continue
                raise refusal

        type(self).forward = forward  # type: ignore[method-assign]
        return code

    def fork(self, graphs: list[fx.Graph]) -> None:
        """Adds paths."""
        self.meta[_PATHS] = graphs

    def _others(self) -> list[Callable[..., Any]]:
        compiled = self.__dict__.get("_compiled_paths")
        if compiled is None:
            code = [graph.python_code("self") for graph in self.meta.get(_PATHS, [])]
            compiled = _Compiled(_forward_from_src(c.src, c.globals) for c in code)
            self.__dict__["_compiled_paths"] = compiled
        return compiled


class _Compiled(list[Callable[..., Any]]):
    """Functions of one module, which a copy of it compiles again."""

    def __deepcopy__(self, memo: Any) -> None:
        return None


def is_forked(module: Any) -> bool:
    """Whether a module has several paths."""
    return isinstance(module, Forked) and bool(module.meta.get(_PATHS))
