"""Tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..graph import DependencyGraph
from .report import describe_groups


def summary_rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(what, dense, slim, change) for the terminal and the HTML page."""
    macs, params, quality, latency = report["macs"], report["params"], report["quality"], report["latency"]
    rows = quality_rows(quality)
    rows.append(("parameters", f"{params['dense']:,}", f"{params['slim']:,}", f"{params['cut']:.2f}× fewer"))
    rows.append(("MACs", f"{macs['dense']:,}", f"{macs['slim']:,}", f"{macs['cut']:.2f}× fewer"))
    sizes = report["onnx"]
    if sizes["slim_bytes"]:
        dense, slim = sizes["dense_bytes"], sizes["slim_bytes"]
        rows.append(("ONNX file", f"{dense / 1e6:.2f} MB", f"{slim / 1e6:.2f} MB", f"{dense / slim:.2f}× smaller"))
    if latency:
        low, high = latency["ci95"]
        threads = f"{latency['threads']} thread{'s' if latency['threads'] > 1 else ''}"
        rows.append(
            (
                f"latency, {threads}, batch {latency['batch']}",
                f"{latency['dense_ms']:.3f} ms",
                f"{latency['slim_ms']:.3f} ms",
                f"{latency['speedup']:.2f}× faster (95 %: {low:.2f}–{high:.2f})",
            )
        )
    return rows


def quality_rows(quality: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    if quality["metric"] == "accuracy":
        change = 100 * (quality["final"] - quality["dense"])
        return [
            ("accuracy before recovery", f"{quality['dense']:.4f}", f"{quality['pruned']:.4f}", ""),
            ("accuracy, final", f"{quality['dense']:.4f}", f"{quality['final']:.4f}", f"{change:+.2f} points"),
        ]
    crops = f"{quality['images']} crops{', random weights' if quality['random_weights'] else ''}"
    return [
        ("agreement with dense (top-1)", "1.0000", f"{quality['final']:.4f}", crops),
        ("KL from dense", "0.0000", f"{quality['kl']['final']:.4f}", "nats a crop"),
    ]


def report_table(report: dict[str, Any], title: str) -> Table:
    """The table that a run ends with."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name, justify in (("", "left"), ("dense", "right"), ("slim", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in summary_rows(report):
        table.add_row(*row)
    gate = report["gate"]
    table.caption = (
        f"gate passed: largest relative difference masked/slim {gate['masked_vs_slim']['max_rel']:.1e}, "
        f"in float64 {gate['float64']['max_rel']:.1e}, reload {gate['reload']['max_rel']:.1e}, "
        f"ONNX {gate['onnx']['max_rel']:.1e}"
    )
    return table


def graph_table(graph: DependencyGraph, title: str) -> list[Table]:
    """Groups, and barriers if there are any."""
    groups = Table(title=title, title_justify="left")
    for name in ("leading layer", "channels", "units", "parameters", "MACs", "kind"):
        groups.add_column(name, justify="left" if name in ("leading layer", "kind") else "right")
    for entry in describe_groups(graph):
        groups.add_row(
            entry["name"],
            str(entry["channels"]),
            str(entry["units"]),
            f"{entry['params']:,}",
            f"{entry['macs']:,}",
            entry["kind"],
        )
    tables = [groups]
    if graph.barriers:
        barriers = Table(title="Barriers: channels that stay", title_justify="left")
        for name in ("op", "module", "channels", "reason", "code"):
            barriers.add_column(name, justify="right" if name == "channels" else "left", overflow="fold")
        for barrier in graph.barriers:
            barriers.add_row(barrier.op, barrier.module, str(barrier.channels), barrier.reason, barrier.line)
        tables.append(barriers)
    return tables
