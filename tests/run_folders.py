"""Folders of finished runs, of the stored report with other numbers in it: nothing is run."""

import copy
import json
from pathlib import Path

import yaml

STORED = json.loads((Path(__file__).parent / "report" / "report.json").read_text())
NOON = 1795780800.0  # 2026-11-27, 12:00 UTC


def changed(data, changes):
    """A copy of nested data with values at dotted keys."""
    data = copy.deepcopy(data)
    for key, value in changes.items():
        *places, last = key.split(".")
        inner = data
        for place in places:
            inner = inner[place]
        inner[last] = value
    return data


def write_run(folder, *, recipe=None, ended=NOON, plan=None, **changes):
    """A folder as a finished run leaves it; `changes` are values of its report, at keys with `__` for dots."""
    folder.mkdir(parents=True)
    changes = {"budget": {"macs": 0.5}, "search": None, **{key.replace("__", "."): v for key, v in changes.items()}}
    (folder / "report.json").write_text(json.dumps(changed(STORED, changes)))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"seed": 0, "data": {"source": "digits"}, **(recipe or {})}))
    if ended is not None:
        (folder / "log.jsonl").write_text(json.dumps({"time": ended, "event": "finished"}))
    if plan is not None:
        (folder / "plan.json").write_text(plan.to_json())
    return folder


FAST = {"latency__speedup": 2.0, "latency__ci95": [1.95, 2.05], "latency__slim_ms": 0.004}
FASTER = {"latency__speedup": 3.0, "latency__ci95": [2.9, 3.1], "latency__slim_ms": 0.003, "macs__slim": 11000}
GOOD, BETTER = {"quality__final": 288 / 360}, {"quality__final": 342 / 360}
