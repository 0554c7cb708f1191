"""The ops that compute a tensor from their arguments, and do nothing else: those that a program may hold.

They are those that have a record (a user's own included), but for what reads memory that its arguments do not hold:
`as_strided` and `_reshape_alias` (any offset), `set_` and `resize_` (other storage), `from_file`, and kernels that
trust sizes (`native_batch_norm`).
"""

from __future__ import annotations

import torch

from ..ops import op_name
from ..ops.record import is_known, record_of


def refusal(overload: torch._ops.OpOverload) -> str:
    """Why a program may not hold an op; empty where it may."""
    name = op_name(overload)
    if record_of(name).trusts:
        return "is not an op of a network: it reads memory that its arguments may not hold"
    if any(argument.is_out for argument in overload._schema.arguments):
        return "is not an op of a network: it writes into a tensor that it is given"
    if not is_known(name):
        return "is not an op of a network that is known here: it has no rule and is not among those that only compute"
    return ""
