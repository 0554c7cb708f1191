"""What the tools' command lines share: one line for bad input, and exit code 2."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser that ends as `fail` does."""

    def error(self, message: str) -> NoReturn:
        fail(message)


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def record_each(
    models: Sequence[str],
    measure: Callable[[str], dict[str, Any]],
    path: Path | None,
    about: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """What `measure` finds of each model; with `path`, written there anew after each, as `networks` beside `about`."""
    records: list[dict[str, Any]] = []
    try:
        for number, name in enumerate(models, start=1):
            print(f"{name} ({number} of {len(models)})", file=sys.stderr)
            records.append(measure(name))
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({**about(records), "networks": records}, indent=1) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        print(f"interrupted after {len(records)} networks; --json has what is done", file=sys.stderr)
        raise SystemExit(130) from None
    return records
