"""The part of a report on the acceptance gate. Tolerances and reasons are in docs/report.md."""

from __future__ import annotations

from pydantic import Field

from ..verify import Gate as AcceptanceGate
from ..verify.gate_records import GateOfCut


class Gate(GateOfCut):
    """The acceptance gate, of the network in the end. See the tolerances and reasons below."""

    before_finetuning: GateOfCut | None = Field(
        default=None,
        description="the same for the network as cut, if it was recovered or fine-tuned since",
    )


def gate_record(final: AcceptanceGate, pruned: AcceptanceGate | None = None, passed: bool = True) -> Gate:
    """What a report says of a run's gates.

    Args:
        final: that of the network in the end.
        pruned: that of the network as cut, where it was changed since.
        passed: whether all else that the gate depends on has passed.

    Returns:
        The record, which has passed if all of it has.
    """
    gates = [final, *([pruned] if pruned else [])]
    return Gate.model_validate(
        {
            **final.record().set_fields(),
            "passed": passed and all(gate.passed for gate in gates),
            "before_finetuning": pruned.record() if pruned else None,
        }
    )
