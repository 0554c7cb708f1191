"""Shows what goes into and comes out of chosen calls while a model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ..graph.recorded_calls import CallSite
from ..ops import OpMode, op_name
from ..ops.record import in_order

See = Callable[[tuple[Any, ...], Any], None]  # gets the arguments and the result


class Observer(OpMode):
    """Within `with Observer({site: see}):`, `see(args, result)` is called after each call at a site,
    with its arguments in the op's own order.

    The model must run as it was traced: in evaluation mode, with `modules.plain_attention`. One forward pass each.
    """

    def __init__(self, watch: Mapping[CallSite, See]) -> None:
        super().__init__()
        self.watch = watch
        self.calls: Counter[str] = Counter()

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = op_name(op)
        site = (name, self.calls[name])
        self.calls[name] += 1
        result = op(*args, **kwargs)
        if site in self.watch:
            self.watch[site](tuple(in_order(op, args, kwargs)), result)
        return result
