"""The steps in which the groups of a network get narrower, by the scores that they lose."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..graph import Group
    from ..plan.allocations import Load
    from ..plan.budget import Choice, Widths


class RemovalSteps:
    """The steps by which groups get narrower than they are, those that lose the least score a unit first."""

    def __init__(
        self,
        choices: Sequence[Choice],
        scores: Mapping[str, np.ndarray],
        present: Mapping[str, int],
        min_channels: int,
    ) -> None:
        """`present` are the widths that groups of `scores` have by now; the others stay as they are."""
        steps: list[tuple[float, str, int, int]] = []  # the score a unit, the group, its width before and after
        self.present = {choice.group.name: int(choice.widths[-1]) for choice in choices}
        self.present |= {name: width for name, width in present.items() if name in self.present}
        for choice in choices:
            name, group = choice.group.name, choice.group
            if name not in scores or name not in present:
                continue
            lost = _lost(group, group.ranked(scores[name], min_channels))
            wider = present[name]
            for width in (int(width) for width in choice.widths[::-1] if width < present[name]):
                loss = lost[(group.units - width) // group.step] - lost[(group.units - wider) // group.step]
                steps.append((float(loss) / (wider - width), name, wider, width))
                wider = width
        self.steps = sorted(steps, key=lambda step: step[0])  # stable: of equal ones the widest first

    def __len__(self) -> int:
        return len(self.steps)

    def after(self, number: int) -> Widths:
        """The widths after so many steps."""
        widths = dict(self.present)
        for _, name, _, width in self.steps[:number]:
            widths[name] = min(width, widths[name])
        return widths

    def to_budget(self, load: Load) -> Widths:
        """The widths after the fewest steps that meet the budget, less those of them that it can do without: where
        steps are coarse, the last may save more than it has to."""
        number = self.first(lambda widths: load(widths) <= 1)
        widths = self.after(number)
        for _, name, wider, width in reversed(self.steps[:number]):
            if load(widths) >= 0.99:
                break
            if widths[name] == width and load({**widths, name: wider}) <= 1:
                widths[name] = wider
        return widths

    def gone(self, widths: Widths) -> int:
        """How many units have gone with these widths."""
        return sum(self.present.values()) - sum(widths.values())

    def first(self, holds: Callable[[Widths], bool]) -> int:
        """After how many steps something holds that goes on to hold; all if it never does."""
        return bisect.bisect_left(range(len(self.steps)), True, key=lambda number: holds(self.after(number)))


def _lost(group: Group, scores: np.ndarray) -> np.ndarray:
    """What score is lost with the units that go first, for each number of the group's steps."""
    columns = []
    for stratum, rate in enumerate(group.rates):
        ordered = np.sort(scores[group.strata == stratum]).clip(min=0)  # less is of units that have gone
        columns.append(ordered[: len(ordered) // rate * rate].reshape(-1, rate).sum(1))
    count = min(map(len, columns))
    return np.concatenate([np.zeros(1), np.cumsum(sum(column[:count] for column in columns))])
