"""What a process shares is as it was afterwards, and two threads at work are both right."""

import builtins
import gc
import logging
import os
import platform
import random
import re
import resource
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401  (sets environment variables and warning filters of its own)
import torch
from torch import nn

import structprune as sp
from structprune import process_state, progress
from structprune.modules import plain_transformers
from structprune.process_state import settings_kept
from structprune.runtimes.engine import torch_settings


class Deep(nn.Module):
    """Blocks one in another, whose code looks at lengths and modes."""

    def __init__(self, width, blocks):
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, padding=1)) for _ in range(blocks))
        self.leave = nn.Conv2d(width, 4, 1)

    def forward(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x.relu())
        return self.leave(x.reshape(len(x), -1, *x.shape[2:]))


X = torch.randn(1, 3, 8, 8)


def facts(model):
    graph = sp.trace(model, X)
    return repr(graph.groups), graph.macs(), graph.params(), repr(graph.barriers)


def state():
    """The switches of this process."""
    hooks = nn.modules.module
    return {
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "warnings": list(warnings.filters),
        "logging": (logging.root.manager.disable, {name: logging.getLogger(name).level for name in ("torch.onnx",)}),
        "functions": (builtins.len, torch.is_grad_enabled, nn.Module.__dict__.get("training")),
        "hooks": (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)),
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
        "modes": (torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()),
        "process": (gc.isenabled(), os.getcwd(), dict(os.environ), os.fstat(1).st_ino, signal.getsignal(signal.SIGINT)),
    }


def test_threads_trace_different_models_at_once_and_each_is_right():
    models = [Deep(4 + 2 * number, 1 + number % 3) for number in range(6)]
    alone, before, over = [facts(model) for model in models], state(), threading.Event()

    def work_of_another_thread():
        while not over.is_set():
            with torch.no_grad():
                models[0](X)

    with ThreadPoolExecutor(4) as pool:
        other = pool.submit(work_of_another_thread)
        together = list(pool.map(facts, models * 2))
        over.set()
        other.result()
    assert together == alone * 2
    assert state() == before


def test_a_run_leaves_the_process_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = {"model": {"name": "test_resnet", "kwargs": {"in_chans": 1, "num_classes": 10}}}
    recipe = {**model, "data": {"source": "digits", "image_size": 16}, "prune": {"budget": {"macs": 0.5}, "align": 1}}
    checked, before = sp.recipe.check_recipe(recipe), state()
    plan = sp.run(checked, tmp_path / "run", plan_only=True)
    assert plan["budget"] == {"macs": 0.5}
    assert state() == before


def test_settings_are_put_back_after_an_error():
    before = state()
    try:
        with settings_kept():
            torch.manual_seed(3)
            random.seed(3)
            warnings.filterwarnings("ignore", category=UserWarning, module="torch")
            raise KeyError
    except KeyError:
        pass
    assert state() == before


def test_counting_by_fvcore_puts_its_log_level_back():
    import logging

    from structprune.report.fvcore_counts import count_macs

    logger = logging.getLogger("fvcore")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        count_macs(nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 8, 8))
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or not Path("/proc").is_dir(), reason="another C library")
def test_large_blocks_of_memory_are_used_again_and_given_back():
    def pages(count=4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            torch.zeros(2**24)  # 64 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    outside = pages()
    with process_state.memory_reused():
        pages(1)
        assert pages() < outside / 4
        within = resident()
    assert within - resident() > 2**25


def interleaved(*managers):
    """Two threads: the second enters while the first is within, if it may, and leaves after it."""
    inside, first_left = threading.Event(), threading.Event()

    def second():
        with managers[1]:
            inside.set()
            assert first_left.wait(5)

    with ThreadPoolExecutor(1) as pool:
        with managers[0]:
            work = pool.submit(second)
            inside.wait(0.1)
        first_left.set()
        work.result()


SWITCHES = {
    "quiet": progress.quiet,
    "the fast path of attention": plain_transformers,
    "the default dtype": lambda: process_state.default_dtype(torch.float64),
    "torch's threads": lambda: torch_settings(torch.get_num_threads() + 1),
    "full float32": process_state.full_float32,
    "pickles": process_state.only_tensors_unpickled,
    "warnings": process_state.silent_warnings,
    "large blocks of memory": process_state.memory_reused,
    "a logger": lambda: process_state.silent_logger("torch.onnx"),
    "random numbers": process_state.seeded,
    "a run's settings": process_state.settings_kept,
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
def test_threads_that_interleave_put_back_what_was_there(switch):
    before = state()
    interleaved(switch(), switch())
    assert state() == before


def test_a_threads_random_numbers_are_not_drawn_by_another():
    def draw(_):
        numbers = []
        with process_state.seeded(7):
            for _ in range(20):
                numbers += [random.random(), float(np.random.rand()), float(torch.rand(()))]
                time.sleep(1e-4)  # so that another thread may come in between
        return numbers

    with ThreadPoolExecutor(3) as pool:
        assert len({tuple(numbers) for numbers in pool.map(draw, range(6))}) == 1


def test_no_package_changes_what_a_process_shares_but_by_process_state():
    """Whose filters and generators threads put back in turn; a process of its own may do as it likes."""
    lines = {
        f"{path.name}: {line.strip()}"
        for path in Path(sp.__file__).parent.rglob("*.py")
        if path.name != "process_state.py" and "suites" not in path.parts
        for line in path.read_text().splitlines()
        if re.search(r"catch_warnings|fork_rng|\.setLevel", line)
    }
    assert lines == set()
