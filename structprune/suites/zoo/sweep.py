"""Puts models of the zoo through their tasks in child processes, and notes each record at once."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from .. import pool
from ..command_line import check_known, fail, follow, note
from ..pool import Limits, Record
from ..results import Results, stamp, with_commit
from .records import merged, trouble

TASKS = "structprune.suites.zoo.tasks"
SECTIONS = {"sweep": "results", "plan": "plans", "barriers": "barriers"}  # of the results file, by operation
GOOD = ("passed", "planned", "traced")
LIVES = 25  # tasks of a process where a process for each would mostly import


@dataclass(frozen=True)
class Settings:
    """What is asked of each model.

    Attributes:
        op: `sweep` (build, trace, plan, prune, verify), `plan` (on the meta device, without weights) or `barriers`
            (traced in both forms and no more).
        seed: Of the weights and the image.
        budget: The share of the MACs that may stay.
        limits: What bounds the processes.
        again: Whether results that are there are made anew.
        failed: Whether those are that did not pass.
    """

    op: str
    seed: int
    budget: float
    limits: Limits
    again: bool = False
    failed: bool = False

    @property
    def section(self) -> str:
        """Where the results stand in their file."""
        return SECTIONS[self.op]

    @property
    def short(self) -> Limits:
        """The limits for tasks that take no longer than to import timm."""
        return replace(self.limits, lives=LIVES)


class Zoo:
    """timm's families and their models, as a child process lists them, with the versions at work."""

    def __init__(self, settings: Settings) -> None:
        with closing(pool.run(TASKS, [{"op": "hello"}], replace(settings.limits, lives=1))) as outcomes:
            _, answer = next(outcomes)
        if answer["status"] != "done":
            fail(f"a worker can't list timm's models: {answer.get('message')}: {' / '.join(answer.get('frames', []))}")
        self.settings = settings
        self.families: dict[str, list[str]] = answer["families"]
        versions = answer["versions"]
        self.versions: dict[str, str] = {**versions, "structprune": with_commit(versions["structprune"])}
        self.family_of = {name: family for family, models in self.families.items() for name in models}

    def select(
        self, models: Sequence[str], families: Sequence[str], results: Results, whole: bool = False, drawn: int = 0
    ) -> list[tuple[str, str]]:
        """Chooses models. A name that timm does not know ends the program with one line.

        Args:
            models: These, whatever their size.
            families: These; all of them where this and `models` are empty.
            results: Where the smallest model of each family is noted.
            whole: Whether every model of the families is chosen, and not only the smallest.
            drawn: So many of each family, drawn by the seed, and not the smallest.

        Returns:
            The chosen ones as (family, model), each once.
        """
        for name in models:
            check_known("model", name, self.family_of)
        for name in families:
            check_known("family", name, self.families)
        chosen = [(self.family_of[name], name) for name in models]
        families = families or ([] if models else list(self.families))
        if whole:
            chosen += [(family, name) for family in families for name in self.families[family]]
        elif drawn:
            for family in families:
                every, draw = self.families[family], random.Random(f"{family} {self.settings.seed}")
                chosen += [(family, name) for name in draw.sample(every, min(drawn, len(every)))]
        else:
            self.find_smallest(families, results)
            smallest = results.section("smallest")
            chosen += [(family, smallest[family]["model"]) for family in families if smallest[family]["model"]]
        return list(dict.fromkeys(chosen))

    def find_smallest(self, families: Iterable[str], results: Results) -> None:
        """Notes each family's model of fewest parameters, once for a version of timm."""
        timm, smallest = self.versions["timm"], results.section("smallest")
        missing = [family for family in families if smallest.get(family, {}).get("timm") != timm]
        tasks = [
            {"op": "sizes", "model": family, "models": self.families[family], "seed": self.settings.seed}
            for family in missing
        ]
        for task, record in follow(TASKS, tasks, self.settings.short, "smallest models"):
            built = {name: size for name, size in record.get("sizes", {}).items() if size is not None}
            model = min(built, key=lambda name: (built[name], name)) if built else None
            why = "" if built else "timm can build no model of it" if task["models"] else "timm has no model of it"
            entry = {"model": model, "params": built.get(model), "why": why, "timm": timm}
            results.put("smallest", task["model"], entry)

    def perform(self, selected: Sequence[tuple[str, str]], results: Results) -> list[Record]:
        """Does the task of each model that has no result yet.

        Args:
            selected: The models, as `select` returns them.
            results: Where the records are written, each at once.

        Returns:
            The records of all that were selected, in their order.
        """
        settings, entries = self.settings, results.section(self.settings.section)
        request = {"seed": settings.seed, "budget": settings.budget}

        def is_there(model: str) -> bool:
            record = entries.get(model)
            if settings.again or record is None or record["asked"] != request:
                return False
            return record["status"] in GOOD or not settings.failed

        waiting = [(family, model) for family, model in selected if not is_there(model)]
        if len(waiting) < len(selected):
            note(f"{len(selected) - len(waiting)} results are in {results.path} already (--again makes them anew)")
        tasks = [{"op": settings.op, "family": family, "model": model, **request} for family, model in waiting]
        limits = settings.limits if settings.op == "sweep" else settings.short
        for task, record in follow(TASKS, tasks, limits, settings.op):
            record = {"family": task["family"], "model": task["model"], **record, "asked": request}
            record["made"] = stamp(self.versions)
            if settings.op == "plan" and "barriers" in record:
                record["barriers"] = merged(record["barriers"])
            for trace in record.get("traces", {}).values():
                trace["barriers"] = merged(trace["barriers"])
            results.put(settings.section, task["model"], record)
            note(progress_line(record))
        return [entries[model] for _, model in selected]


def progress_line(record: Record) -> str:
    """What became of one model."""
    good = record["status"] in GOOD
    if record["status"] == "traced":
        outcome = ", ".join(f"{form} {trace['prunable']:.0%}" for form, trace in record["traces"].items())
    else:
        outcome = f"{record['status']} {record['cut']:.2f}× {record['form']}".rstrip() if good else trouble(record)
    peak = f"{record['peak_memory'] / 2**30:.1f} GiB"
    return f"{record['family']}: {record['model']} {outcome}, {record['total_seconds']:.0f} s, {peak}"
