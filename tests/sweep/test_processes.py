"""Runs in processes of their own: what they end with, and that none is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import yaml

from structprune.cli import main
from structprune.sweep import Job, on_this_machine, sweep
from structprune.sweep.processes import execute
from tests.sweep.small_sweep import BASE, quiet, write_sweep

LONG = {**BASE, "train": {**BASE["train"], "epochs": 2000}}  # still at work when the others have ended
BAD = {**BASE, "prune": {"criterion": "l11", "budget": {"macs": 0.5}}}  # it ends before anything is imported


def job_of(folder, name="run", recipe=BASE):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return Job(name, folder / f"{name}.yaml", folder / name, folder / f"{name}.log", folder)


def test_a_process_ends_with_its_code_and_its_words_in_the_log(tmp_path):
    job = job_of(tmp_path, recipe=BAD)
    assert execute(job).code == 2
    assert "error: " in job.log.read_text()
    assert "unknown criterion 'l11'" in job.log.read_text()


def test_a_process_that_can_not_start_is_a_failed_run_and_no_more(tmp_path):
    job = replace(job_of(tmp_path, recipe=BAD), directory=tmp_path / "nowhere")
    assert [ending.code for _, ending in on_this_machine(1)([job, job_of(tmp_path, "other", BAD)])] == [1, 2]
    assert job.log.read_text().startswith("error: FileNotFoundError: ")


def test_an_interrupted_process_is_ended(tmp_path):
    stopping = threading.Event()
    threading.Timer(0.5, stopping.set).start()
    ending = execute(job_of(tmp_path, recipe=LONG), 1, stopping)
    assert ending.code in (-15, -2, 1, 130)  # wherever in its imports or its work it was
    assert execute(job_of(tmp_path, "other"), 1, stopping).code != 0
    assert not (tmp_path / "other.log").exists()  # it was not even started


def test_a_process_that_misses_an_interrupt_is_told_again(tmp_path, monkeypatch):
    script = tmp_path / "hard_of_hearing"
    script.write_text(
        f"#!{sys.executable}\nimport pathlib, signal, sys, time\nheard = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: heard.append(1) or len(heard) > 1 and sys.exit(130))\n"
        f"pathlib.Path({str(tmp_path / 'up')!r}).touch()\nwhile True: time.sleep(0.05)\n"
    )
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr("structprune.sweep.processes.GRACE", 2.0)
    stopping = threading.Event()

    def stop():
        while not (tmp_path / "up").exists():
            time.sleep(0.02)
        stopping.set()

    threading.Thread(target=stop, daemon=True).start()
    assert execute(job_of(tmp_path), 1, stopping).code == 130


@pytest.mark.thorough
def test_ctrl_c_in_the_midst_ends_all(tmp_path, monkeypatch):
    """Three jobs, two at a time: the first ends at once, and the exception comes before the others do."""
    jobs = [job_of(tmp_path, "bad", BAD), job_of(tmp_path, "long", LONG), job_of(tmp_path, "waiting")]
    processes = []
    start = subprocess.Popen

    def noted(*arguments, **options):
        processes.append(start(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr("structprune.sweep.processes.subprocess.Popen", noted)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for job, ending in on_this_machine(2)(jobs):
            assert (job.name, ending.code) == ("bad", 2)
            raise KeyboardInterrupt
    assert len(processes) >= 2
    assert all(process.poll() is not None for process in processes)
    assert not (tmp_path / "long" / "report.json").exists()


@pytest.mark.thorough
def test_two_processes_at_a_time_end_in_one_table(tmp_path):
    path = write_sweep(tmp_path, {"grid": {"prune.criterion": ["l1", "random"]}, "seeds": 1, "timing_seconds": 0.02})
    report = sweep(path, tmp_path / "out", executor=on_this_machine(2), reporter=quiet())
    assert [(arm.arm, arm.n, arm.failed) for arm in report.arms] == [("l1", 1, 0), ("random", 1, 0)]
    assert all((tmp_path / "out" / f"{arm}-seed0" / "slim.onnx").is_file() for arm in ("l1", "random"))


def test_sigterm_is_taken_as_ctrl_c(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("structprune.cli.app", lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
