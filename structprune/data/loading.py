"""Batches of a dataset, for training, measuring and calibrating alike. Samples that can't be read are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, default_collate

from ..errors import RecipeError, StructPruneError
from ..user_code_calls import reason

Stream = Dataset | Iterable[Any]  # a dataset of samples, or batches


class Unreadable:
    """Stands in a batch for a sample whose file can't be read."""


class Collate:
    """Makes a batch of the samples that could be read; None if none could. A class, as workers need to pickle it."""

    def __init__(self, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        read = [item for item in items if not isinstance(item, Unreadable)]
        return self.collate(read) if read else None


def is_dataset(source: Any) -> bool:
    """Whether `source` gives samples by number: a torch Dataset that is neither a stream nor a loader."""
    numbered = isinstance(source, Dataset) or (hasattr(source, "__getitem__") and hasattr(source, "__len__"))
    return numbered and not isinstance(source, (IterableDataset, DataLoader, list, tuple))


def data_loader(
    dataset: Dataset,
    batch_size: int,
    collate: Callable[[list[Any]], Any] = default_collate,
    *,
    workers: int = 0,
    shuffle: bool = False,
    drop_last: bool = False,
) -> DataLoader:
    """PyTorch's loader of a dataset."""
    return DataLoader(
        dataset, batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=workers, collate_fn=Collate(collate)
    )


def loader_of(
    source: Stream, batch_size: int, collate: Callable[[list[Any]], Any] = default_collate, *, workers: int = 0
) -> Iterator[Any]:
    """The batches of a dataset, in order and to the last one, or of an iterable of batches, as they are.

    Raises RecipeError for what a user's dataset raises, and for files that can't be read beyond the share allowed.
    """
    batches: Any = source
    if is_dataset(source):
        batches = data_loader(source, batch_size, collate, workers=workers)  # type: ignore[arg-type]
    yield from guarded(batches)
    check_readable(source)


def guarded(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches in which a sample could be read. Raises RecipeError for whatever a dataset raises."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except StructPruneError:
            raise
        except Exception as error:  # whatever a dataset of the user's raises
            raise RecipeError(f"the data can't be read: {reason(error)}") from error
        if batch is not None:
            yield batch


def whole(source: Any) -> Any:
    """The dataset that `source` is a subset of, or `source` itself."""
    while isinstance(source, Subset):
        source = source.dataset
    return source


def check_readable(source: Any) -> None:
    """Raises RecipeError if more files of a dataset than allowed have turned out unreadable so far."""
    check = getattr(whole(source), "check_readable", None)
    if callable(check):
        check()
