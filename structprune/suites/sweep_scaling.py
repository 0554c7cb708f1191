"""How long a sweep would take with other numbers of workers, seeds and models: simulated from what its runs logged."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..errors import StructPruneError
from ..json_records import read_record
from ..sweep import SweepReport

_TRAINED = ("train-", "early-", "finetune-")  # what the artefacts are called that are made by training
Part = tuple[str | None, float]  # an artefact, or None for work of the run's own, and seconds


@dataclass(frozen=True)
class RunCosts:
    """What a run did, in turn: `parts` that it made or found, and work of its own between them."""

    name: str
    seed: int
    model: str
    parts: Sequence[Part]


def read_costs(folder: Path, start: float) -> list[RunCosts]:
    """Reads the costs of a finished sweep.

    Args:
        folder: The sweep's.
        start: Seconds that a run's process takes until it logs something.

    Returns:
        The costs of each run that finished, in the order of the sweep.

    Raises:
        StructPruneError: The folder holds no sweep of which a run has finished, or a log or a recipe is broken.
    """
    report = read_record(folder / "sweep.json", SweepReport)
    if not report.runs:
        raise StructPruneError(f"{folder} holds a sweep of which no run has finished: there is nothing to go by")
    logs = {(run.folder, run.seed): _events(folder / run.folder / "log.jsonl") for run in report.runs}
    seconds: dict[str, float] = {}
    for event in (event for events in logs.values() for event in events if event["event"] == "made"):
        # a run that waits for another logs what it waited for as made: the longest is what making took
        seconds[event["artefact"]] = max(seconds.get(event["artefact"], 0.0), float(event["seconds"]))
    return [
        RunCosts(name, seed, _model(folder / name / "recipe.yaml"), [(None, start), *_parts(events, seconds)])
        for (name, seed), events in logs.items()
    ]


def _model(path: Path) -> str:
    """What a run's recipe says of its network, as one text."""
    try:
        return json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))["model"], sort_keys=True)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StructPruneError(f"{path} can't be read: {error}") from error


def _events(path: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise StructPruneError(f"{path} can't be read: {error}") from error


def _parts(events: Iterable[Mapping], seconds: Mapping[str, float]) -> list[Part]:
    parts: list[Part] = []
    events = list(events)
    before = float(events[0]["time"]) if events else 0.0
    for event in events:  # what is logged while something is made is part of that
        time = float(event["time"])
        if event["event"] == "made":
            parts.append((None, max(0.0, time - float(event["seconds"]) - before)))
            parts.append((event["artefact"], seconds[event["artefact"]]))
        elif event["event"] == "found" and event["artefact"] in seconds:
            parts += [(None, time - before), (event["artefact"], seconds[event["artefact"]])]
        elif event is events[-1]:
            parts.append((None, time - before))
        else:
            continue
        before = time
    return parts


def makespan(runs: Sequence[RunCosts], workers: int, shared: bool = True) -> float:
    """Simulates a sweep: each worker takes the next run that none has taken, and artefacts are made once.

    Args:
        runs: In the order in which they are taken.
        workers: How many there are, each as fast as the one that was measured.
        shared: Whether runs share what they make; a run that needs what another is making waits for it.

    Returns:
        Seconds until the last run has ended.
    """
    ready: dict[str, float] = {}  # when each artefact is there
    queue = iter(runs)
    clocks: list[tuple[float, int, list[Part]]] = [(0.0, worker, []) for worker in range(workers)]
    last = 0.0
    while clocks:
        time, worker, parts = heapq.heappop(clocks)
        if not parts:
            last = max(last, time)
            run = next(queue, None)
            if run is not None:
                heapq.heappush(clocks, (time, worker, [*run.parts]))
            continue
        (artefact, seconds), *rest = parts
        if artefact is not None and shared:
            end = ready.setdefault(artefact, time + seconds)
            heapq.heappush(clocks, (max(time, end), worker, rest))
        else:
            heapq.heappush(clocks, (time + seconds, worker, rest))
    return last


def worker_rows(runs: Sequence[RunCosts], workers: Sequence[int]) -> list[tuple[int, float, float, float]]:
    """For each number of workers: minutes, times as fast as one, and the share of the workers' time that is used."""
    alone = makespan(runs, 1)
    rows = []
    for count in workers:
        seconds = makespan(runs, count)
        rows.append((count, seconds / 60, alone / seconds, alone / seconds / count))
    return rows


def process_rows(runs: Sequence[RunCosts], processes: Sequence[int]) -> list[tuple[int, float, float]]:
    """For each number of processes of one run: minutes of the mean run alone, and times as fast as one process.

    Processes share what trains, evenly and at no cost, and one of them does everything else: no launch is faster.
    """
    parts = [part for run in runs for part in run.parts]
    trained = sum(seconds for artefact, seconds in parts if artefact and artefact.startswith(_TRAINED))
    other = sum(seconds for _, seconds in parts) - trained
    rows = []
    for count in processes:
        seconds = (other + trained / count) / len(runs)
        rows.append((count, seconds / 60, (other + trained) / len(runs) / seconds))
    return rows


def seed_rows(runs: Sequence[RunCosts]) -> list[tuple[int, float, float]]:
    """For each number of seeds: minutes on one worker, and what they would be if nothing were shared."""
    return _growing(runs, [run.seed for run in runs])


def model_rows(runs: Sequence[RunCosts]) -> list[tuple[int, float, float]]:
    """The same for each number of models, in the order of the sweep."""
    return _growing(runs, [run.model for run in runs])


def _growing(runs: Sequence[RunCosts], values: Sequence[object]) -> list[tuple[int, float, float]]:
    """Rows of the runs with the first value, with the first two, and so on."""
    distinct = list(dict.fromkeys(values))
    rows = []
    for count in range(1, len(distinct) + 1):
        some = [run for run, value in zip(runs, values, strict=True) if value in distinct[:count]]
        rows.append((count, makespan(some, 1) / 60, makespan(some, 1, shared=False) / 60))
    return rows
