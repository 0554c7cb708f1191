"""What a run says at its end: report.json (versioned), report.html and the table in the terminal.

Enters: what the stages measured. Leaves: a `Report`, which `table` and `html` show. `records` and `gate` say what its
fields mean, `report` fills them in, `verdict` says what it comes to.
"""

from .diagnosis import diagnosis_table
from .fvcore_counts import CountedMacs, count_macs, counted_macs
from .html import render_html
from .listing import catalogue_table
from .quality import quality_record
from .records import SCHEMA, Report, Verdict
from .report import Measurements, build_report
from .table import (
    also_table,
    benchmark_table,
    cost_tables,
    graph_table,
    int8_table,
    report_table,
    sensitivity_table,
)
from .verdict import verdict_of

__all__ = [
    "SCHEMA",
    "CountedMacs",
    "Measurements",
    "Report",
    "Verdict",
    "also_table",
    "benchmark_table",
    "build_report",
    "catalogue_table",
    "cost_tables",
    "count_macs",
    "counted_macs",
    "diagnosis_table",
    "graph_table",
    "int8_table",
    "quality_record",
    "render_html",
    "report_table",
    "sensitivity_table",
    "verdict_of",
]
