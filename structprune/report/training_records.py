"""What a report says of how the networks were trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..json_records import JsonRecord


class Finetuning(JsonRecord):
    """The training of the slim network."""

    start: Literal["slim", "scratch", "rewind"] = Field(
        description="what it started from: the network as cut and recovered, new random weights (only the structure is "
        "the cut's), or the dense network's weights of an early epoch"
    )
    rewind_to: int | None = Field(default=None, description="that epoch; left out for the others")
    epochs: int = Field(description="how many epochs were asked for, more than the recipe's where compute is equal")

    def of_what(self) -> str:
        """What is called final, in a few words."""
        trained = {"slim": "final", "scratch": "trained from new weights"}
        return trained.get(self.start, f"trained from the weights of epoch {self.rewind_to}")


class PruningRound(JsonRecord):
    """One round of a cut that went in several: the last one's quality is that of `quality`."""

    macs: int = Field(description="multiply-adds of the network that it left")
    params: int = Field(description="parameters likewise")
    pruned: float = Field(description="the metric as cut in this round")
    recovered: float | None = Field(default=None, description="after recovery; left out without")
    final: float = Field(description="the metric at the end of the round")


class Epoch(JsonRecord):
    """An epoch of a training."""

    epoch: int = Field(description="counted from 1")
    train_loss: float = Field(description="the mean loss of its batches")
    lr: float = Field(description="the learning rate at its end")
    metric: str = Field(default="", description="what was measured after it, on the validation split; empty if nothing")
    value: float | None = Field(default=None, description="the metric; `null` if it was not measured")


class Epochs(JsonRecord):
    """The epochs of the trainings of a run."""

    dense: list[Epoch] = Field(default_factory=list, description="of the dense network; empty if it was not trained")
    slim: list[Epoch] = Field(default_factory=list, description="of the slim network, in the last round; or empty")
    rounds: list[list[Epoch]] = Field(
        default_factory=list, description="of the slim network in each round before the last; empty where none trained"
    )

    def throughout(self) -> list[Epoch]:
        """The epochs of the slim network in all rounds, counted on from each to the next."""
        rows = [row for epochs in (*self.rounds, self.slim) for row in epochs]
        return [row.model_copy(update={"epoch": number}) for number, row in enumerate(rows, 1)]
