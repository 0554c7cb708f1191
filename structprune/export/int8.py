"""int8 by onnxruntime's own static quantiser: QDQ, a scale for each output channel, from calibration inputs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ..errors import ModelError
from ..process_state import silent_warnings
from ..progress import quiet
from ..store import atomic_files

Feed = dict[str, np.ndarray]


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def quantize(source: str | Path, target: str | Path, feeds: Sequence[Feed]) -> Path:
    """Quantises an ONNX file to int8. The new file appears whole or not at all.

    Args:
        source: the file in float32.
        target: the file to write.
        feeds: calibration inputs, arrays by the names of inputs, that give the ranges of activations.

    Returns:
        `target`.

    Raises:
        ModelError: onnxruntime's quantiser fails.
    """

    def write(aside: Path) -> None:
        with tempfile.TemporaryDirectory() as folder, silent_warnings(), quiet():
            level = logging.root.manager.disable
            logging.disable(logging.WARNING)
            try:
                prepared = Path(folder) / "prepared.onnx"
                quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
                quantize_static(
                    str(prepared),
                    str(aside),
                    _Reader(feeds),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                )
            finally:
                logging.disable(level)

    try:
        return atomic_files.write(Path(target), write)
    except Exception as error:  # its exceptions share no base
        detail = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{source} can't be quantised by onnxruntime ({type(error).__name__}: {detail[:200]})"
        ) from error
