"""A child process for the tests of the pool: operations that end well, raise, die, hang and grow."""

import os
import time

from structprune.suites.worker import serve


def answer(task, notes):
    with notes.stage("counting"):
        notes.record["square"] = task["number"] ** 2
    print("what a model prints is no answer")
    return "done"


def refuse(task, notes):
    from structprune.errors import PlanError

    raise PlanError("no such plan")


def stumble(task, notes):
    raise KeyError("missing")


def die(task, notes):
    with notes.stage("dying"):
        notes.record["known"] = True
        os._exit(7)


def hang(task, notes):
    with notes.stage("hanging"):
        time.sleep(60)


def grow(task, notes):
    with notes.stage("growing"):
        held = bytearray(300 << 20)
        held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])  # resident, not only promised
        time.sleep(60)


if __name__ == "__main__":
    serve({function.__name__: function for function in (answer, refuse, stumble, die, hang, grow)})
