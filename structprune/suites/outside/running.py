"""Puts networks through the suite in child processes, and notes each record at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from ..command_line import fail, follow, note
from ..pool import Limits, Record
from ..results import Results, stamp, with_commit
from .records import right, trouble
from .registry import PACKAGES

TASKS = "structprune.suites.outside.tasks"
FROM = ("transformers", "diffusers", "segmentation-models-pytorch", "monai")


def installed() -> dict[str, str]:
    """The versions of structprune, with its commit, and of the packages that the networks are from, as far as they are
    installed."""
    versions = {"structprune": with_commit(version("structprune"))}
    for name in ("torch", "onnxruntime", "torchvision", *FROM):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def check_installed(names: Sequence[str], versions: dict[str, str]) -> None:
    """Ends the program with one line where a package that one of these networks is from is missing."""
    for package in dict.fromkeys(PACKAGES[name] for name in names):
        if package != "own" and package not in versions:
            fail(f"{package} is not installed: pip install -c constraints.txt -e '.[outside]' (or choose by --only)")


def perform(
    names: Sequence[str],
    results: Results,
    limits: Limits,
    *,
    seed: int,
    budget: float,
    versions: dict[str, str],
    again: bool = False,
    failed: bool = False,
) -> list[Record]:
    """Runs what has no result yet.

    Args:
        names: The networks.
        results: Where the records are written, each at once.
        limits: What bounds the processes.
        seed: Of the weights and the example.
        budget: The share of the MACs that may stay.
        versions: What the records say of their origin.
        again: Whether results that are there are made anew.
        failed: Whether those are that did not pass.

    Returns:
        The records of all names, in their order.
    """
    entries, question = results.section("outside"), {"seed": seed, "budget": budget}

    def is_there(name: str) -> bool:
        record = entries.get(name)
        if again or record is None or record["asked"] != question:
            return False
        return record["status"] == "passed" or not failed

    tasks = [{"op": "outside", "model": name, **question} for name in names if not is_there(name)]
    for task, record in follow(TASKS, tasks, limits, "outside"):
        record = {"model": task["model"], **record, "asked": question, "made": stamp(versions)}
        results.put("outside", task["model"], record)
        outcome = f"right {record['cut']:.2f}× {record['form']}" if right(record) else trouble(record)
        note(f"{task['model']}: {outcome}, {record['total_seconds']:.0f} s")
    return [entries[name] for name in names]
