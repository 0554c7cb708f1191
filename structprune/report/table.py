"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from ..cost import CostModel
from ..graph import DependencyGraph
from ..plan.alignment import aligned
from ..records import Sensitivity
from ..runtimes import Benchmark, Runtime, pace
from ..runtimes.other_runtimes import OtherRuntime, TimedOn
from ..verify.gate_records import Comparison, GateOfCut
from .records import Latency, Quality, Report
from .summaries import describe_groups
from .verdict import factor_in_words, verdict_of

Row = tuple[str, str, str, str]
_COLOURS = {"good": "bold green", "poor": "bold red", "broken": "bold red"}


def summary_rows(report: Report) -> list[Row]:
    """(what, dense, slim, change) for the terminal and the HTML page."""
    macs, params, latency = report.macs, report.params, report.latency
    rows = quality_rows(report.quality, report.finetuning.of_what() if report.finetuning else "final")
    rows.append(("parameters", f"{params.dense:,}", f"{params.slim:,}", f"{params.cut:.2f}× fewer"))
    rows.append(("MACs", f"{macs.dense:,}", f"{macs.slim:,}", f"{macs.cut:.2f}× fewer"))
    dense, slim = report.onnx.dense_bytes, report.onnx.slim_bytes
    if dense and slim:
        rows.append(("ONNX file", f"{dense / 1e6:.2f} MB", f"{slim / 1e6:.2f} MB", f"{dense / slim:.2f}× smaller"))
    rows += [entry.row() for entry in report.formats]
    return rows + (_latency_rows(latency) if latency else [])


def _latency_rows(latency: Latency) -> list[Row]:
    low, high = latency.ci95
    factor, remark = factor_in_words(latency.speedup, latency.ci95)
    is_usual = (latency.engine, latency.device) == (Runtime.engine, Runtime.device)
    rows = [
        (
            f"latency, {_setting(latency)}" if is_usual else f"latency in {_engine(latency)}, {_setting(latency)}",
            f"{latency.dense_ms:.3f} ms",
            f"{latency.slim_ms:.3f} ms",
            f"{factor} {'faster' if latency.speedup >= 1 else 'as fast'} (95 %: {low:.2f}–{high:.2f}{remark})",
        )
    ]
    if joules := latency.joules:
        less = f"{joules.dense / joules.slim:.2f}× less, idle included"
        rows.append(("energy a pass", f"{joules.dense:.3f} J", f"{joules.slim:.3f} J", less))
    rate = latency.gmacs_per_second
    efficiency = f"efficiency {latency.efficiency:.2f} (speedup ÷ MACs cut)"
    return [*rows, ("MACs a second", f"{rate.dense:.1f} G", f"{rate.slim:.1f} G", efficiency)]


def _engine(row: TimedOn) -> str:
    return f"{row.engine}{' on cuda' if row.device == 'cuda' else ''}"


def _setting(row: TimedOn) -> str:
    threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
    return f"{threads}, batch {row.batch}{', int8' if row.dtype == 'int8' else ''}"


def also_rows(also: Sequence[OtherRuntime]) -> list[Row]:
    """(runtime, dense, slim, change) of other runtimes; an error in the place of a change."""
    rows = []
    for row in also:
        what = f"{_engine(row)}, {_setting(row)}"
        if row.ci95 is None or row.speedup is None:
            rows.append((what, "", "", row.error or ""))
            continue
        low, high = row.ci95
        factor, remark = factor_in_words(row.speedup, row.ci95)
        change = f"speedup {factor} (95 %: {low:.2f}–{high:.2f}{remark})"
        rows.append((what, f"{row.dense_ms:.3f} ms", f"{row.slim_ms:.3f} ms", change))
    return rows


def also_table(also: Sequence[OtherRuntime]) -> Table:
    """Makes the table of the networks on other runtimes.

    Args:
        also: A record for each runtime.

    Returns:
        The table, for rich to print, as are those below.
    """
    table = Table(title="on other runtimes", title_justify="left")
    for name, justify in (("", "left"), ("dense", "right"), ("slim", "right"), ("", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in also_rows(also):
        _add(table, *row)
    return table


def quality_rows(quality: Quality, final: str = "final") -> list[Row]:
    """As cut, after recovery if there was any, and at the end, which is called `final`."""
    stages = [("as cut", "pruned"), ("recovered", "recovered"), (final, "final")]
    values = quality.stages()
    stages = [(words, stage) for words, stage in stages if stage in values]
    if quality.metric == "accuracy":
        rows = [(f"accuracy, {words}", f"{quality.dense:.4f}", f"{values[stage]:.4f}", "") for words, stage in stages]
        rows[-1] = (*rows[-1][:3], f"{100 * (quality.final - quality.dense):+.2f} points")
        kept = quality.likeness.get("still right", {}).get("final")
        return rows if kept is None else [*rows, ("still right", "1.0000", f"{kept:.4f}", "of what dense gets right")]
    if quality.metric != "agreement" or quality.kl is None:
        return _other_rows(quality, stages)
    crops = f"{quality.images} crops{', random weights' if quality.random_weights else ''}"
    rows = [(f"agreement with dense, {words}", "1.0000", f"{values[stage]:.4f}", "") for words, stage in stages]
    rows[-1] = (*rows[-1][:3], f"top-1, {crops}")
    rows += [(f"KL from dense, {words}", "0.0000", f"{quality.kl[stage]:.4f}", "") for words, stage in stages]
    rows[-1] = (*rows[-1][:3], "nats a crop")
    return rows


def _other_rows(quality: Quality, stages: list[tuple[str, str]]) -> list[Row]:
    """The same of any task's metric; the last row of each says how far the end is from the dense network."""
    better = "higher" if quality.higher_is_better else "lower"
    about = f"; {better} is better, {quality.images} samples"
    if quality.random_weights:
        about += ", random weights"
    shown: list[tuple[str, Mapping[str, float | None], str]] = [(quality.metric, quality.stages(), about)]
    shown += [(name, values, "") for name, values in quality.likeness.items()]
    rows: list[Row] = []
    for name, values, more in shown:
        rows += [(f"{name}, {words}", _number(values["dense"]), _number(values[stage]), "") for words, stage in stages]
        first, last = values["dense"], values["final"]
        change = "" if first is None or last is None else f"{last - first:+.4f}"
        rows[-1] = (*rows[-1][:3], change + more)
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def int8_rows(report: Report) -> list[tuple[str, ...]]:
    """Dense and slim in float32 and int8, after the names of the columns; KL only where it was measured."""
    has_kl = any(row.kl is not None for row in report.int8)
    kl_name = ("KL, nats",) if has_kl else ()
    speeds = ("speed, from dense float32", "gained by pruning")
    rows = [("network", report.quality.metric, *kl_name, "ONNX file", "median ms", *speeds)]
    for row in report.int8:
        kl = ("" if row.kl is None else f"{row.kl:.4f}",) if has_kl else ()
        ms = "" if row.ms is None else f"{row.ms:.2f}"
        speed = "1×" if row.network == "dense" else _factor(row.speedup, row.ci95)
        pruned = _factor(row.pruned_speedup, row.pruned_ci95)
        rows.append((row.network, f"{row.quality:.4f}", *kl, f"{row.bytes / 1e6:.2f} MB", ms, speed, pruned))
    return rows


def _factor(speedup: float | None, ci95: Sequence[float] | None) -> str:
    if speedup is None or not ci95:
        return ""
    factor, remark = factor_in_words(speedup, ci95)
    return f"{factor} ({ci95[0]:.2f}–{ci95[1]:.2f}{remark})"


def int8_table(report: Report) -> Table:
    """Makes the table of dense and slim in float32 and int8.

    Args:
        report: One with `int8`.

    Returns:
        The table.
    """
    table = Table(title="float32 and int8", title_justify="left")
    names, *rows = int8_rows(report)
    for name in names:
        table.add_column(name, justify="left" if name == "network" else "right")
    for row in rows:
        _add(table, *row)
    return table


def benchmark_table(benchmark: Benchmark) -> Table:
    """Makes the table of a benchmark: milliseconds, and how many times as fast as the first network each is.

    Args:
        benchmark: What was timed.

    Returns:
        The table.
    """
    reference = next(iter(benchmark.ms))
    slower = [pace(reference, name, benchmark.speedup[name], benchmark.ci95[name]) for name in benchmark.speedup]
    table = Table(title=titled("", slower), title_justify="left", caption_justify="left")
    energy = ["J a pass"] if benchmark.joules else []
    compared = ["speedup", "95 %", ""] if benchmark.speedup else []
    for name in ("file", "median ms", "95 %", *energy, *compared):
        table.add_column(name, justify="left" if name in ("file", "") else "right")
    for name, ms in benchmark.ms.items():
        spread = benchmark.ms_ci95.get(name)
        cells = [name, f"{ms:.3f}", f"{spread[0]:.3f} to {spread[1]:.3f}" if spread else ""]
        cells += [f"{benchmark.joules[name]:.3f}"] if benchmark.joules else []
        if name not in benchmark.speedup:
            _add(table, *cells, *(["1", "", "reference"] if compared else []))
            continue
        low, high = benchmark.ci95[name]
        _add(table, *cells, f"{benchmark.speedup[name]:.3f}×", f"{low:.3f} to {high:.3f}", benchmark.verdict(name))
    threads = f"{benchmark.threads} thread{'s' if benchmark.threads > 1 else ''}"
    table.caption = escape(
        f"{benchmark.runtime}, {threads}, batch {benchmark.batch}: "
        f"{benchmark.turns} turns in {benchmark.rounds} rounds"
        + (
            f"; on core{'s' if len(benchmark.cores) > 1 else ''} {', '.join(map(str, benchmark.cores))}"
            if benchmark.cores
            else ""
        )
        + ("; joules are the processor's, idle share included" if benchmark.joules else "")
        + "".join(f"; {note}" for note in benchmark.notes if note not in slower)
    )
    return table


def _add(table: Table, *cells: str) -> None:
    """A row of text as it is: names of layers, files and code have brackets, which rich would read as styles."""
    table.add_row(*(escape(cell) for cell in cells))


def titled(title: str, slower: Sequence[str]) -> str | None:
    """A table's title, after a red line on each network that is no faster than what it would replace."""
    lines = [f"[bold red]{escape(line)}[/bold red]" for line in slower if line]
    return "\n".join([*lines, *([title] if title else [])]) or None


def cost_tables(graph: DependencyGraph, cost: CostModel, title: str) -> list[Table]:
    """Shows where the dense network's time goes, and what narrowing each group alone is expected to save.

    Args:
        graph: The dense network's.
        cost: What widths cost on a runtime.
        title: Of the first table.

    Returns:
        A table of layers and one of groups.
    """
    layers: dict[str, float] = {}
    ops: dict[str, dict[str, None]] = {}
    for kernel in cost.kernels:
        layers[kernel.layer] = layers.get(kernel.layer, 0.0) + kernel.dense_ms
        ops.setdefault(kernel.layer, {})[kernel.op] = None
    total = sum(layers.values())
    where = Table(title=escape(title), title_justify="left", caption_justify="left")
    for name in ("layer", "kernels", "ms", "share"):
        where.add_column(name, justify="left" if name in ("layer", "kernels") else "right")
    for layer, ms in layers.items():
        _add(where, layer, ", ".join(ops[layer]), f"{ms:.3f}", f"{100 * ms / total:.1f} %")
    where.caption = (
        f"{cost.runtime.name}: {cost.dense_ms:.2f} ms in all; kernels timed one by one. "
        f"{100 * cost.fixed:.0f} % of the time does not depend on widths that can be pruned"
    )
    by_group = Table(
        title="Groups: widths between multiples gain nothing", title_justify="left", caption_justify="left"
    )
    for name in ("leading layer", "channels", "multiple", "ms at 3/4", "ms at half"):
        by_group.add_column(name, justify="left" if name == "leading layer" else "right")
    multiples = aligned(graph, cost.multiples)
    for group in graph.groups:
        expected = [f"{cost.at({group.name: round(group.units * s)}, graph):.2f}" for s in (0.75, 0.5)]
        _add(by_group, group.name, str(group.channels), str(multiples[group.name]), *expected)
    by_group.caption = (
        f"the whole network, with one group narrower; the model is off by {100 * cost.error:.1f} % in the median, on "
        f"networks it had not seen ({cost.probes} timed)"
    )
    return [where, by_group]


def sensitivity_table(graph: DependencyGraph, sensitivity: Sensitivity, title: str) -> Table:
    """Shows the loss for each share of a group's units that goes.

    Args:
        graph: The dense network's.
        sensitivity: The scan.
        title: Of the table.

    Returns:
        The table, a line for each group.
    """
    shares = sorted(
        {round(1 - kept / max(losses), 3) for losses in sensitivity.losses.values() for kept in losses} - {0.0}
    )
    if len(shares) > 8:  # narrow groups round to shares of their own
        shares = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75]
    table = Table(title=escape(title), title_justify="left", caption_justify="left")
    table.add_column("leading layer")
    table.add_column("units", justify="right")
    for share in shares:
        table.add_column(f"-{100 * share:.3g} %", justify="right")
    for group in graph.groups:
        losses = sensitivity.losses.get(group.name)
        if losses is None:
            _add(table, group.name, str(group.units), *["-"] * len(shares))
            continue
        nearest = [min(losses, key=lambda kept: abs(kept - group.units * (1 - share))) for share in shares]
        _add(table, group.name, str(group.units), *[f"{losses[kept]:.4f}" for kept in nearest])
    return table


def report_table(report: Report, title: str) -> Table:
    """Makes the table that a run ends with; first of all its verdict, red where it is bad.

    Args:
        report: What a run came to.
        title: The second line.

    Returns:
        The table.
    """
    verdict = report.verdict or verdict_of(report)  # of an early version
    colour = _COLOURS[verdict.state]
    first = f"[{colour}]{escape(verdict.text)}[/{colour}]"
    table = Table(title=f"{first}\n{escape(title)}", title_justify="left", caption_justify="left")
    for name, justify in (("", "left"), ("dense", "right"), ("slim", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in summary_rows(report):
        _add(table, *row)
    table.caption = gate_caption(report.gate)
    return table


COMPARISONS = {
    "masked_vs_slim": "masked dense and slim",
    "float64": "masked dense and slim, in float64",
    "random_weights": "the same with random weights",
    "reload": "slim and slim reloaded from disk",
    "onnx": "slim and its ONNX file in onnxruntime",
    "training": "masked dense and slim, one training step",
}


class GateRow(NamedTuple):
    """A comparison with what it compares, and whether anything was: without, its figures say nothing."""

    what: str
    is_measured: bool
    comparison: Comparison


def gate_rows(gate: GateOfCut) -> list[GateRow]:
    """A row for each comparison, in the order in which they are made."""
    comparisons = gate.comparisons()
    return [GateRow(what, bool(comparisons[name].batches), comparisons[name]) for name, what in COMPARISONS.items()]


def gate_caption(gate: GateOfCut) -> str:
    """The gate's verdict in a sentence, with what was not compared and why."""
    short = {"masked_vs_slim": "masked/slim", "float64": "in float64", "reload": "reload", "onnx": "ONNX"}
    comparisons = gate.comparisons()
    figures = [f"{words} {comparisons[name].max_rel:.1e}" for name, words in short.items() if comparisons[name].batches]
    caption = f"gate {'passed' if gate.passed else 'failed'}: largest relative difference {', '.join(figures)}"
    if gate.training.state == "passed":
        caption += f", after a training step {gate.training.max_rel:.1e}"
    details = [f"{name}: {comparison.detail}" for name, comparison in comparisons.items() if comparison.detail]
    whose = gate.weights.detail if gate.weights else ""
    return escape("; ".join([caption, *details, *([whose] if whose else [])]))


def graph_table(graph: DependencyGraph, title: str) -> list[Table]:
    """Shows the groups; barriers and layers that stay whole, if there are any.

    Args:
        graph: The network's.
        title: Of the first table.

    Returns:
        One to three tables.
    """
    groups = Table(title=escape(title), title_justify="left")
    for name in ("leading layer", "channels", "units", "parameters", "MACs", "kind"):
        groups.add_column(name, justify="left" if name in ("leading layer", "kind") else "right")
    for entry in describe_groups(graph):
        counts = (str(entry.channels), str(entry.units), f"{entry.params:,}", f"{entry.macs:,}")
        _add(groups, entry.name, *counts, entry.kind)
    tables = [groups]
    if graph.barriers:
        barriers = Table(title="Barriers: channels that stay", title_justify="left")
        for name in ("op", "module", "channels", "reason", "code"):
            barriers.add_column(name, justify="right" if name == "channels" else "left", overflow="fold")
        for barrier in graph.barriers:
            _add(barriers, barrier.op, barrier.module, str(barrier.channels), barrier.reason, barrier.line)
        tables.append(barriers)
    if graph.whole_layers:
        whole = Table("layers", "reason", title="Layers that stay whole", title_justify="left")
        for reason in dict.fromkeys(graph.whole_layers.values()):
            layers = [path or "top level" for path, why in graph.whole_layers.items() if why == reason]
            more = f" and {len(layers) - 4} more" if len(layers) > 4 else ""
            _add(whole, ", ".join(layers[:4]) + more, reason)
        tables.append(whole)
    return tables
