"""What a run says at its end: report.json (versioned), report.html and the table in the terminal."""

from .counts import count_macs
from .findings import macs_disagreements, macs_or_none
from .html import render_html
from .quality import quality_record
from .report import SCHEMA, build_report
from .table import (
    also_table,
    benchmark_table,
    cost_tables,
    criteria_table,
    graph_table,
    int8_table,
    report_table,
    sensitivity_table,
)
from .verdict import Verdict, verdict_of

__all__ = [
    "SCHEMA",
    "Verdict",
    "also_table",
    "benchmark_table",
    "build_report",
    "cost_tables",
    "count_macs",
    "criteria_table",
    "graph_table",
    "int8_table",
    "macs_disagreements",
    "macs_or_none",
    "quality_record",
    "render_html",
    "report_table",
    "sensitivity_table",
    "verdict_of",
]
