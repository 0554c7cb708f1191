"""The table of both tools over seeds."""

from structprune.compare.records import Comparison, CutRow, Dense, FailedRow, RowQuality
from structprune.suites.peers.trained import COLUMNS, table_rows


def comparison(dense, *rows):
    return Comparison.model_construct(dense=Dense.model_construct(quality=dense), rows=[*rows])


def row(tool, cut, pruned, final):
    return CutRow.model_construct(tool=tool, cut=cut, quality=RowQuality.model_construct(pruned=pruned, final=final))


failed = FailedRow(network="x", tool="torch-pruning", error="?")


def test_each_tool_has_a_row_with_its_spread_and_how_often_it_came_through():
    results = {
        0.25: [
            comparison(0.90, row("structprune", 4.0, 0.5, 0.8), row("torch-pruning", 4.1, 0.3, 0.7)),
            comparison(0.92, row("structprune", 4.0, 0.7, 0.9), failed),
        ],
        0.5: [comparison(0.9, failed)],
    }
    ours, theirs, none = table_rows(results)
    assert ours == ("0.25", "structprune", "2", "4.00 ± 0.00", "0.9100 ± 0.0141", "0.6000 ± 0.1414", "0.8500 ± 0.0707")
    assert theirs == ("0.25", "torch-pruning", "1", "4.10", "0.9100 ± 0.0141", "0.3000", "0.7000")
    assert none == ("0.5", "torch-pruning", "0", "-", "0.9000", "-", "-")
    assert len(COLUMNS) == len(ours)
