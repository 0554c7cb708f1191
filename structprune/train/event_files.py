"""Event files of a training, which TensorBoard shows while it goes on; none where TensorBoard is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..user_code import Tell

if TYPE_CHECKING:
    from .trainer import EpochFigures


class EventFiles:
    """The figures of a training by epoch, under the names that they have in summary.csv.

    What an earlier process has written of the same training counts no more: a training that goes on from a checkpoint
    may do an epoch again, or go on in another run's folder, so that all epochs so far are written once more.
    """

    def __init__(self, folder: Path | None, tell: Tell = lambda line: None) -> None:
        """`folder` gets the files; None for none. `tell` gets a line if TensorBoard is installed and does not work."""
        self.folder, self.tell = folder, tell
        self._writer: Any = None
        self._written = 0

    def write(self, figures: Sequence[EpochFigures]) -> None:
        """Writes the epochs that are not written yet, of all so far."""
        if self.folder is not None and self._writer is None and figures:
            self._writer = _open(self.folder, figures[0].epoch, self.tell)
        if self._writer is None:
            self.folder = None
            return
        for row in figures[self._written :]:
            values = {"train_loss": row.train_loss, "lr": row.lr}
            if row.value is not None:
                values[f"eval_{row.metric}"] = row.value
            for name, value in values.items():
                self._writer.add_scalar(name, value, row.epoch)
        self._writer.flush()
        self._written = len(figures)

    def close(self) -> None:
        """Ends the file. Nothing is written afterwards."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self.folder = None


def _open(folder: Path, epoch: int, tell: Tell) -> Any:
    """A writer that has TensorBoard forget what a folder holds from an epoch on; None where there can't be one."""
    try:
        metadata.version("tensorboard")
    except metadata.PackageNotFoundError:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # whatever keeps it and what it needs from being imported
        tell(
            f"tensorboard is installed and can't be used ({type(error).__name__}: {error}): no event files are written"
        )
        return None
    return SummaryWriter(str(folder), purge_step=epoch)  # type: ignore[no-untyped-call]
