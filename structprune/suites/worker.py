"""The child side of `pool`: takes tasks as JSON lines on its input and answers with JSON lines.

A task is `{"op": ..., ...}`, and a module's operations are functions by name. While one runs,
`{"stage": ..., "record": ...}` says how far it is and what it knows, so that a child that is killed loses little;
`{"done": record}` ends it. What a model prints goes to the error stream. The process ends with its input, so none
outlives its parent.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StructPruneError
from .pool import Record, memory


class Notes:
    """What is known of a task so far, reported to the parent at the start of each stage."""

    def __init__(self, tell: Callable[[Record], None]) -> None:
        self.record: Record = {"seconds": {}}
        self._tell = tell

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.record["stage"] = name
        self._tell({"stage": name, "record": self.record})
        start, seconds = time.perf_counter(), self.record["seconds"]
        try:
            yield
        finally:
            seconds[name] = round(seconds.get(name, 0) + time.perf_counter() - start, 2)


Operation = Callable[[Record, Notes], str]  # does a task and says which status it ends with


def perform(task: Record, tell: Callable[[Record], None], ops: Mapping[str, Operation]) -> Record:
    """The record of a task, whatever its operation raises."""
    notes = Notes(tell)
    try:
        notes.record["status"] = ops[task["op"]](task, notes)
    except Exception as error:
        notes.record.update(describe(error))
    notes.record["peak_memory"] = memory(os.getpid())[1]
    return notes.record


def describe(error: Exception) -> Record:
    """The status and message that an exception stands for; what is not raised on purpose brings its last frames."""
    if isinstance(error, StructPruneError):
        return {"status": "refused", "error": type(error).__name__, "message": one_line(error)}
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return {"status": "memory", "error": type(error).__name__, "message": one_line(error)}
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-6:]]
    return {"status": "error", "error": type(error).__name__, "message": one_line(error), "frames": frames}


def one_line(error: Exception, limit: int = 400) -> str:
    """The text of an error without its line breaks, cut off after `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def error_line(error: Exception, limit: int = 160) -> str:
    """The type of an error and its text in one line, the text cut off after `limit` characters."""
    return f"{type(error).__name__}: {one_line(error, limit)}".rstrip(": ")


def read_tasks(tasks: queue.Queue[Record]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)  # the parent is gone, or needs this process no longer


def serve(ops: Mapping[str, Operation]) -> None:
    """The main function of a child process: does tasks until its input ends.

    Args:
        ops: The operation by the name that a task gives as its `op`.
    """
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    if "torch" in sys.modules:  # a module whose operations need it has imported it
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(message: Record) -> None:
        answers.write(json.dumps(message) + "\n")

    tasks: queue.Queue[Record] = queue.Queue()
    threading.Thread(target=read_tasks, args=(tasks,), daemon=True).start()
    while True:
        task = tasks.get()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        tell({"done": perform(task, tell, ops)})
