"""Random inputs (seeded) for ONNX files: values do not matter where only time does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from ..errors import RecipeError

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def made_up_inputs(path: str | Path, batch: int = 1) -> dict[str, np.ndarray]:
    """Random inputs for an ONNX file, by name; axes that it leaves open are `batch` long.

    Raises RecipeError for what is not an ONNX model, and for inputs of a kind that no values can be made up for.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return inputs_of(opened(path, options, "CPUExecutionProvider"), batch, path)


def opened(path: str | Path, options: onnxruntime.SessionOptions, provider: str) -> onnxruntime.InferenceSession:
    """An ONNX file in onnxruntime. Raises RecipeError where there is none."""
    if not Path(path).is_file():
        raise RecipeError(f"{path} is not a file")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions share no base
        raise RecipeError(f"{path} can't be opened by onnxruntime: {str(error).splitlines()[0]}") from error


def inputs_of(session: onnxruntime.InferenceSession, batch: int, path: str | Path) -> dict[str, np.ndarray]:
    """Random inputs for an open file."""
    rng = np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in entry.shape]
        if entry.type in _DTYPES:
            feed[entry.name] = rng.standard_normal(shape).astype(_DTYPES[entry.type])
        elif entry.type in _INTEGERS:
            feed[entry.name] = np.ones(shape, _INTEGERS[entry.type])
        else:
            raise RecipeError(f"{path}: input {entry.name} is a {entry.type}, for which no values can be made up")
    return feed
