"""A pool of child processes that run tasks, each task with a time-out and a cap on its memory.

Enter tasks (plain data) and limits, leave records; a child is a module of the package that calls `worker.serve`. The
parent imports neither torch nor timm. Every task ends with a record, whatever becomes of its process: the worker's own,
or what the worker had reported so far with the status `timeout`, `memory` or `error`. Resident memory is watched
through /proc, that is on Linux only.
"""

from __future__ import annotations

import json
import math
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = dict[str, Any]
_HOME = Path(__file__).parents[2]  # where `structprune` is imported from


@dataclass(frozen=True)
class Limits:
    """What bounds a pool.

    Attributes:
        jobs: Processes at once.
        timeout: Seconds that a task may take.
        memory: Bytes of resident memory that a process may hold.
        lives: Tasks that a process does before another takes its place.
        threads: Of torch, in each process.
        stages: Seconds that a stage of a task may take, by its name; no stage outlasts its task.
    """

    jobs: int
    timeout: float
    memory: int
    lives: int = 1
    threads: int = 1
    stages: Mapping[str, float] = field(default_factory=dict)


class Worker:
    """One child process, `python -m module`, and the task it is at."""

    def __init__(self, module: str, limits: Limits) -> None:
        threads = {f"{name}_NUM_THREADS": str(limits.threads) for name in ("OMP", "MKL", "OPENBLAS")}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **threads},
            cwd=_HOME,  # first on a module's path: the child runs the package that its parent runs
            start_new_session=True,  # Ctrl-C is the parent's
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.limits, self.lives, self._buffer = limits, limits.lives, b""
        self.task: Record | None = None
        self.stage, self.known, self.peak = "", Record(), 0
        self.started = self.stage_started = 0.0

    def give(self, task: Record) -> None:
        assert self.process.stdin is not None
        self.task, self.lives = task, self.lives - 1
        self.stage, self.known, self.peak = "start", {}, 0
        self.started = self.stage_started = time.monotonic()
        with suppress(BrokenPipeError):  # a process that died is found by poll
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()

    def poll(self) -> Record | None:
        """The record of the task, once it is over."""
        ended = self.process.poll() is not None  # before reading, so that the last words are read
        for message in self._messages():
            if "done" in message:
                return self._finish(message["done"])
            self.stage, self.known, self.stage_started = message["stage"], message["record"], time.monotonic()
        if ended:
            return self._finish({**self.known, **self._crash()})
        now, _ = memory(self.process.pid)
        self.peak = max(self.peak, now)
        if now > self.limits.memory:
            cap = f"over {self.limits.memory / 2**30:g} GiB while at {self.stage}"
            return self._stop({"status": "memory", "message": cap})
        stage_limit = self.limits.stages.get(self.stage, math.inf)
        for seconds, limit in (
            (self.seconds, self.limits.timeout),
            (time.monotonic() - self.stage_started, stage_limit),
        ):
            if seconds > limit:
                return self._stop({"status": "timeout", "message": f"over {limit:g} s while at {self.stage}"})
        return None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def end(self) -> None:
        self.lives = 0
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _stop(self, why: Record) -> Record:
        self.process.kill()
        self.lives = 0
        return self._finish({**self.known, **why})

    def _finish(self, record: Record) -> Record:
        self.task = None
        record["total_seconds"] = round(self.seconds, 1)
        record["peak_memory"] = max(record.get("peak_memory", 0), self.peak)
        return record

    def _messages(self) -> Iterator[Record]:
        assert self.process.stdout is not None
        while True:
            try:
                part = os.read(self.process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not part:
                break
            self._buffer += part
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            yield json.loads(line)

    def _crash(self) -> Record:
        self.lives = 0
        self.errors.seek(0)
        lines = [line.strip()[:300] for line in self.errors.read().decode(errors="replace").splitlines()]
        fatal = next((number for number, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
        if fatal is not None:  # faulthandler names the innermost frame first
            lines = [*[line for line in lines[fatal:] if line.startswith("File ")][:6][::-1], lines[fatal]]
        code = self.process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return {"status": "error", "error": how, "message": f"died while at {self.stage}", "frames": lines[-8:]}


def reason(record: Record) -> str:
    """Why a task did not end well, in one line: what was raised, or how its process ended, and where."""
    text = ": ".join(str(record[key]) for key in ("error", "message") if record.get(key))
    if record["status"] == "error" and record.get("frames"):
        text += f" ({record['frames'][-1]})"
    return text


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, now and at most; zeros where the system has no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    sizes = {key: 1024 * int(size) for key, size in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE)}
    return sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)


def run(
    module: str, tasks: Sequence[Record], limits: Limits, watch: Callable[[list[Worker]], None] = lambda workers: None
) -> Generator[tuple[Record, Record], None, None]:
    """Runs tasks in processes of a module. Closing the generator, or an exception in it such as Ctrl-C, ends them.

    Args:
        module: The dotted name of a module that calls `worker.serve` when it is run.
        tasks: What the module understands: `{"op": ..., ...}`.
        limits: What bounds the processes.
        watch: Sees the busy workers a few times a second.

    Returns:
        Each task with its record, in the order in which the tasks end.
    """
    waiting = list(reversed(tasks))
    workers: list[Worker] = []
    selector = selectors.DefaultSelector()

    def retire(worker: Worker) -> None:
        selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        workers.remove(worker)
        worker.end()

    try:
        while waiting or any(worker.task for worker in workers):
            while waiting and len(workers) < limits.jobs:
                worker = Worker(module, limits)
                workers.append(worker)
                selector.register(worker.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            for worker in workers:
                if worker.task is None and waiting:
                    worker.give(waiting.pop())
            watch([worker for worker in workers if worker.task])
            if selector.select(timeout=0.2):
                time.sleep(0.01)  # more may come with it; also bounds the pace where a pipe stays readable at its end
            for worker in list(workers):
                task = worker.task
                record = worker.poll() if task else None
                if worker.lives < 1 and worker.task is None:
                    retire(worker)
                if task is not None and record is not None:
                    yield task, record
    finally:
        for worker in list(workers):
            worker.end()
        selector.close()
