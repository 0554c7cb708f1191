"""What is shown while a run works: text as it is, whatever brackets a path or a name has."""

import io

from rich.console import Console

from structprune.progress import Reporter


def test_brackets_are_text():
    stream = io.StringIO()
    reporter = Reporter(Console(file=stream, width=200))
    reporter.stage("reads a[/b] and data[old]/net.py")
    reporter.note("left out: [x]/[/y].png")
    with reporter.bar("timing [/z]") as update:
        update(0.5, "[/more]")
    assert stream.getvalue().splitlines()[:2] == [
        "› reads a[/b] and data[old]/net.py",
        "  note: left out: [x]/[/y].png",
    ]


def test_brackets_in_a_table_are_text():
    from structprune.report.table import also_table
    from structprune.runtimes.other_runtimes import OtherRuntime

    row = OtherRuntime(
        runtime="torch 2", engine="torch", device="cpu", threads=1, batch=1, dtype="float32", error="x[/y] is no z[i]"
    )
    stream = io.StringIO()
    Console(file=stream, width=200).print(also_table([row]))
    assert "x[/y] is no z[i]" in stream.getvalue()
