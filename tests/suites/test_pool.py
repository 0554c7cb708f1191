"""Every task ends with a record, whatever becomes of its process."""

import re
import sys
from contextlib import closing

import pytest

from structprune.suites.pool import Limits, reason, run

LIMITS = Limits(jobs=2, timeout=30.0, memory=200 << 20, lives=4)


def records(*tasks, limits=LIMITS):
    return {task["op"]: record for task, record in run("tests.suites.children", tasks, limits)}


def test_tasks_that_end_by_themselves():
    ended = records({"op": "answer", "number": 3}, {"op": "refuse"}, {"op": "stumble"})
    assert (ended["answer"]["status"], ended["answer"]["square"]) == ("done", 9)
    assert ended["answer"]["seconds"].keys() == {"counting"}
    assert (ended["refuse"]["status"], ended["refuse"]["message"]) == ("refused", "no such plan")
    assert (ended["stumble"]["status"], ended["stumble"]["error"]) == ("error", "KeyError")
    assert ended["stumble"]["frames"][-1].endswith("stumble")


def test_a_process_that_dies_is_a_record_with_its_stage_and_the_next_task_has_another():
    ended = records({"op": "die"}, {"op": "answer", "number": 2}, limits=Limits(1, 30.0, 200 << 20, lives=4))
    assert (ended["die"]["status"], ended["die"]["error"]) == ("error", "exit code 7")
    assert ended["die"]["message"] == "died while at dying"
    assert ended["answer"]["square"] == 4


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_takes_too_long_or_too_much_memory_is_ended():
    ended = records({"op": "grow"})
    assert ended["grow"]["status"] == "memory"
    assert "GiB while at growing" in ended["grow"]["message"]
    ended = records({"op": "hang"}, limits=Limits(1, 0.5, 200 << 20))
    assert ended["hang"]["status"] == "timeout"
    assert ended["hang"]["message"].startswith("over 0.5 s while at ")


def test_a_stage_that_takes_too_long_is_ended_and_others_may_take_as_long_as_the_task():
    limits = Limits(1, 30.0, 200 << 20, stages={"hanging": 0.5, "counting": 20.0})
    ended = records({"op": "hang"}, {"op": "answer", "number": 2}, limits=limits)
    assert (ended["hang"]["status"], ended["hang"]["message"]) == ("timeout", "over 0.5 s while at hanging")
    assert ended["answer"]["status"] == "done"


def test_a_reason_names_what_was_raised_and_where():
    ended = records({"op": "die"}, {"op": "refuse"}, {"op": "stumble"})
    assert reason(ended["die"]) == "exit code 7: died while at dying"
    assert reason(ended["refuse"]) == "PlanError: no such plan"
    assert re.fullmatch(r"KeyError: 'missing' \(children\.py:\d+ stumble\)", reason(ended["stumble"]))


def test_closing_the_generator_ends_the_processes():
    seen = []
    tasks = [{"op": "answer", "number": 1}, {"op": "hang"}]
    with closing(run("tests.suites.children", tasks, LIMITS, lambda workers: seen.extend(workers))) as outcomes:
        next(outcomes)
    assert seen
    assert all(worker.process.poll() is not None for worker in seen)
