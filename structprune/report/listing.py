"""The table of what recipes may name, for the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from ..catalogue import Kind


def catalogue_table(name: str, kind: Kind) -> Table:
    """Lists what a recipe may name at one place: what each is, needs, and says of itself besides.

    Args:
        name: The kind's, as `structprune list` takes it.
        kind: Its records.

    Returns:
        The table, sorted by name, without columns in which nothing would stand.
    """
    table, entries = Table(title=f"{name}, by `{kind.key}`", title_justify="left"), kind.entries()
    facts = [fact for fact in entries[0].facts if any(entry.facts[fact] for entry in entries)]
    titles = [fact.replace("_", " ") for fact in facts]
    for title in ("name", "is", *(["needs"] if any(entry.needs for entry in entries) else []), *titles):
        table.add_column(title, overflow="fold")
    for entry in entries:
        needs = ["; ".join(dict.fromkeys(entry.needs.values()))] if any(each.needs for each in entries) else []
        cells = (entry.name, entry.description, *needs, *(_in_words(entry.facts[fact]) for fact in facts))
        table.add_row(*map(escape, cells))
    return table


def _in_words(fact: Any) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else ""
    return ", ".join(fact) if isinstance(fact, list) else fact or ""
