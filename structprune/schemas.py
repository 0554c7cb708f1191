"""The JSON schemas that docs/ publishes, each made of the record that reads or writes such a file.

`python -m structprune.schemas docs` writes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .compare.plan_difference import PlanDifference
from .compare.records import Comparison
from .compare.run_records import RunComparison
from .cost.cached_records import CacheEntry
from .plan_schema import PlanData
from .report.group_details import RunGroups
from .report.records import Report
from .report.summaries import CostSummary, GraphSummary
from .runtimes import Benchmark
from .sweep.records import SweepReport

RECORDS: dict[str, Any] = {
    "benchmark": Benchmark,
    "cache": CacheEntry,
    "compare": Comparison,
    "compare_runs": RunComparison,
    "cost": CostSummary,
    "graph": GraphSummary,
    "groups": RunGroups,
    "plan": PlanData,
    "plan_difference": PlanDifference,
    "report": Report,
    "sweep": SweepReport,
}


def schemas() -> Iterator[tuple[str, str]]:
    """Each file's name and text."""
    for name, record in RECORDS.items():
        yield f"{name}.schema.json", json.dumps(TypeAdapter(record).json_schema(), indent=1) + "\n"


def main(folder: str) -> None:
    """Writes the schemas into a folder."""
    for name, text in schemas():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
