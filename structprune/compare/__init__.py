"""What stands side by side: a recipe by structprune and by torch-pruning, and finished runs (`structprune compare`);
two plans (`structprune diff`)."""

from .comparison import ROUNDINGS, compare
from .peer_page import render_comparison, write_comparison_page
from .picture import draw
from .plan_difference import PlanDifference, difference_of, difference_table
from .records import SCHEMA, Comparison
from .run_page import folder_beside, render_runs, write_runs, write_runs_page
from .run_records import RunComparison
from .run_rows import runs_table
from .runs_beside import compare_runs
from .table import compare_table

__all__ = [
    "ROUNDINGS",
    "SCHEMA",
    "Comparison",
    "PlanDifference",
    "RunComparison",
    "compare",
    "compare_runs",
    "compare_table",
    "difference_of",
    "difference_table",
    "draw",
    "folder_beside",
    "render_comparison",
    "render_runs",
    "runs_table",
    "write_comparison_page",
    "write_runs",
    "write_runs_page",
]
