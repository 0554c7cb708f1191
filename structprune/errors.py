"""Every error a user can meet. Each message says what was given, why it cannot work and what to do.

`exit_code` is what the command line exits with: 2 for bad input, 3 for a failed acceptance gate.
"""


class StructPruneError(Exception):
    """Base of all errors this package raises on purpose.

    Its text is one line of printable characters, whatever names a file or a network brought into it; where several
    things are wrong, a line for each.

    Args:
        lines: What is wrong.
    """

    exit_code = 2

    def __str__(self) -> str:
        return "\n".join(_one_line(str(line)) for line in self.args)


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_LONGEST = 2000  # characters


class RecipeError(StructPruneError):
    """A recipe, an override or a path that cannot be used as given. It lists all mistakes of a recipe, ten at most."""


class ModelError(StructPruneError):
    """A model that cannot be built, traced or run on its example input."""


class OtherSizeError(ModelError):
    """A graph form that was not traced for inputs of this size."""


class BudgetError(StructPruneError):
    """A budget that no plan under the given constraints can meet."""


class PlanError(StructPruneError):
    """A plan that does not fit the model it is applied to."""


class StoreError(StructPruneError):
    """A saved slim model that cannot be written or read back."""


class TrainingError(StructPruneError):
    """A training whose loss or weights are no longer finite, or whose network or task raises an error."""


class GateError(StructPruneError):
    """The slim network is not the network that the plan describes."""

    exit_code = 3
