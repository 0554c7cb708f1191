"""What a machine has, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from ..diagnosis import PACKAGE, Diagnosis


def diagnosis_table(diagnosis: Diagnosis) -> Table:
    """Shows what this machine is and has, and how to get what is missing.

    Args:
        diagnosis: What was found out.

    Returns:
        The table, with notes as its caption.
    """
    table = Table(
        title="this machine", title_justify="left", caption_justify="left", caption=escape("\n".join(diagnosis.notes))
    )
    table.add_column("")
    table.add_column("", overflow="fold")
    for name, text in _rows(diagnosis):
        table.add_row(escape(name), escape(text))
    return table


def _rows(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    about = diagnosis.environment
    yield "processor", f"{about.processor}, {about.cores} cores"
    yield "instructions", about.instructions or "unknown"
    yield "system", f"{about.system}, Python {about.python}"
    settings = "".join(f", {name}={value}" for name, value in diagnosis.thread_settings.items())
    yield "threads", f"{diagnosis.threads}{settings}"
    yield "GPU", ", ".join(diagnosis.gpus) or "none that PyTorch can use"
    yield from about.packages.items()
    for state in diagnosis.engines:
        yield f"engine {state.engine}, {state.device}", state.version or f"no: {state.missing}"
    for extra in diagnosis.extras:
        remedy = f"no {', '.join(extra.missing)}: pip install '{PACKAGE}[{extra.extra}]'"
        yield f"extra {extra.extra}", remedy if extra.missing else "installed"
    yield "measurements", diagnosis.cache_problem or diagnosis.cache
