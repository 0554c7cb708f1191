"""One recipe that trains, by structprune and by torch-pruning, at several budgets and with several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...compare import Comparison, compare
from ...compare.records import CutRow
from ...progress import Reporter
from ...sweep.spread import shown_spread, spread

COLUMNS = ("share of MACs", "cut by", "n", "MACs cut", "as trained", "as cut", "fine-tuned")


def comparisons(
    recipe: Path, shares: Sequence[float], seeds: int, out: Path, reporter: Reporter | None = None
) -> dict[float, list[Comparison]]:
    """Compares both tools on a recipe, without rounding, or reads what was compared before.

    Args:
        recipe: The recipe's file.
        shares: Of the dense network's multiply-adds, each of which is a budget.
        seeds: How many, from 0.
        out: The folder, which gets one of each comparison.
        reporter: Shows progress.

    Returns:
        The comparisons of each budget, in order of their seeds.

    Raises:
        StructPruneError: As `compare`.
    """
    results: dict[float, list[Comparison]] = {share: [] for share in shares}
    for seed in range(seeds):
        for share in shares:
            folder = out / f"macs={share:g},seed={seed}"
            changes = [f"prune.budget.macs={share}", f"seed={seed}"]
            started = (folder / "recipe.yaml").is_file()
            data = compare(recipe, folder, overrides=changes, roundings=(1,), resume=started, reporter=reporter)
            results[share].append(Comparison.model_validate(data))
    return results


def table_rows(results: Mapping[float, Sequence[Comparison]]) -> Iterator[tuple[str, ...]]:
    """Yields the rows of a table, whose columns are `COLUMNS`: mean ± standard deviation over the seeds of each tool.

    Args:
        results: What `comparisons` gives.

    Yields:
        A text for each column. `n` counts the seeds with which the tool made a network.
    """
    for share, each in results.items():
        dense = shown_spread(spread([comparison.dense.quality for comparison in each]), 4)
        tools = dict.fromkeys(row.tool for comparison in each for row in comparison.rows)
        for tool in tools:
            rows = [
                row for comparison in each for row in comparison.rows if row.tool == tool and isinstance(row, CutRow)
            ]
            cut = spread([row.cut for row in rows]) if rows else None
            qualities = [
                shown_spread(spread([getattr(row.quality, stage) for row in rows]) if rows else None, 4)
                for stage in ("pruned", "final")
            ]
            yield (f"{share:g}", tool, str(len(rows)), shown_spread(cut, 2), dense, *qualities)
