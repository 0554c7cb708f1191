"""The base of training methods that have as many units of each group active as a plan keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .method import Training, TrainingMethod

if TYPE_CHECKING:
    from ..plan.allocations import Allocate
    from .masked_units import MaskedUnits
    from .planned_units import PlannedSpec


class MaskedMethod(TrainingMethod):
    """A method with masks, and a count of updates; both are its state.

    Attributes:
        masks: once `mask` has been called.
        updates: how many updates of the weights there have been.
    """

    masks: MaskedUnits

    def __init__(self) -> None:
        self.updates = 0

    def mask(self, training: Training, spec: PlannedSpec, allocation: Allocate | None = None) -> None:
        """Makes the masks, `allocation` standing in for that of `spec`, and has the user told what they leave out.

        Raises RecipeError and BudgetError.
        """
        from .masked_units import MaskedUnits

        self.masks = MaskedUnits(training, spec, allocation)
        if spec.plans and (others := self.masks.cut_without_masks()):
            named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
            self.note = (
                f"{spec.method} has no masks on channels that the cut narrows too, so the cut changes the network by "
                f"what it takes there (prune.ignore keeps them whole): {named}"
            )

    def state(self) -> Any:
        return [self.updates, self.masks.state()]

    def restore(self, state: Any) -> None:
        self.updates, masks = state
        self.masks.restore(masks)
