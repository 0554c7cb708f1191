"""Runs of a sweep on a Ray cluster: each is the same process as here, wherever Ray has a free CPU.

All nodes see the sweep's folder under the same path, and have structprune installed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import RecipeError
from ..extras import need
from .processes import GRACE, Ending, Executor, Job, execute, not_started


def on_ray(count: int | None = None) -> Executor:
    """Makes what runs jobs on the Ray cluster of this process, of `RAY_ADDRESS`, or a local one that is started.

    Args:
        count: How many runs there are at once; by default as many as the cluster has CPUs.

    Returns:
        A function that takes jobs and yields each with how it ended, as they end. Closing it, or an exception in it
        such as Ctrl-C, ends the runs.

    Raises:
        RecipeError: Ray is not installed.
    """
    need("a sweep on Ray", "ray")

    def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, Ending]]:
        import ray

        is_own = not ray.is_initialized()
        if is_own and jobs:
            _connect()
        waiting, at_work = list(reversed(jobs)), dict[Any, Job]()
        task: Any = ray.remote(num_cpus=1, max_retries=0)(execute)  # Ray's types know no keywords
        try:
            while waiting or at_work:
                while waiting and (count is None or len(at_work) < count):
                    job = waiting.pop()
                    at_work[task.remote(job, threads=1)] = job
                (done,), _ = ray.wait(list(at_work))
                job = at_work.pop(done)
                try:
                    ending = ray.get(done)
                except ray.exceptions.RayError as error:
                    ending = not_started(job, error)
                yield job, ending
        finally:
            for reference in at_work:
                ray.cancel(reference)
            if at_work:  # each ends its process first
                ray.wait(list(at_work), num_returns=len(at_work), timeout=2 * GRACE)
            if is_own:
                ray.shutdown()

    return run


def _connect() -> None:
    import ray

    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RecipeError(f"there is no connection to a Ray cluster ({error}): see to RAY_ADDRESS") from error
