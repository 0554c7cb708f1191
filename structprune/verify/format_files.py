"""Compares the slim network with what a format's files make of the same inputs."""

from __future__ import annotations

from pathlib import Path

from ..export import Finished, Format
from ..export.onnx import resized
from ..ops import Inputs
from .comparison import Comparison
from .running import attempt, batches_of, dtype_of, first_line, noise_of, size_of


def compare_format(record: Format, finished: Finished, folder: Path) -> Comparison:
    """Compares at batch 1 and at another one and, where the format takes images of any size, at other sizes.

    Args:
        record: The format.
        finished: The slim network.
        folder: Where the files are.

    Returns:
        What came of it, at the tolerance of the gate's comparison with ONNX. Nothing raises for files that are wrong.
    """
    slim = finished.slim
    batches = batches_of(slim, finished.inputs)
    comparison = Comparison.of(dtype_of(slim, batches[0]))
    comparison.capped = True
    samples = [*batches, *(_other_sizes(finished) if record.any_size else ())]
    try:
        run = record.open(finished, folder)
    except Exception as error:  # whatever the format's own reader raises
        comparison.fail(f"the file does not open: {first_line(error)}", broken=True)
        return comparison
    refused: list[Exception] = []
    for inputs in samples:
        expected = attempt(slim, inputs)
        if expected is None:  # a size that the network itself does not take
            continue
        try:
            results = run(inputs)
        except Exception as error:  # likewise
            refused.append(error)
            comparison.leave_out(f"batch {size_of(inputs)} not compared: the file does not take it")
            continue
        comparison.add(expected, results, size_of(inputs), noise_of(slim, inputs, expected))
    if not comparison.batches and refused and not comparison.failed:
        comparison.fail(f"the file does not run: {first_line(refused[0])}", broken=True)
    return comparison


def _other_sizes(finished: Finished) -> list[Inputs]:
    return [resized(finished.inputs, higher, wider) for higher, wider in ((32, 64), (-32, -32), (19, 5))]
