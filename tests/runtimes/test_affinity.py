"""Cores are chosen from what the system tells, and put back."""

import os

import pytest
import torch

import structprune as sp
from structprune.runtimes import Runtime, affinity
from structprune.runtimes.affinity import busy_ticks, idlest, pinned
from tests.example_networks import Chain, randomise


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Four logical cores, two to a physical one; the first is busiest, the third does nothing."""
    for core in range(4):
        (tmp_path / f"cpu{core}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{core}" / "topology" / "core_cpus_list").write_text("0,2\n" if core % 2 == 0 else "1,3\n")
    looks = []

    def busy(stat):
        looks.append(1)
        return {0: 100, 1: 100, 2: 100, 3: 100} if len(looks) % 2 else {0: 120, 1: 110, 2: 100, 3: 105}

    monkeypatch.setattr(affinity, "busy_ticks", busy)
    monkeypatch.setattr(affinity, "LOOK", 0)
    return tmp_path


def test_the_idlest_cores_on_different_physical_ones(machine):
    assert idlest([0, 1, 2, 3], 1, machine) == [2]
    assert idlest([0, 1, 2, 3], 2, machine) == [2, 3]
    assert idlest([0, 1, 2, 3], 3, machine) == [1, 2, 3]
    assert idlest([0, 2, 3], 2, machine) == [2, 3]
    assert idlest([0, 1], 1, machine / "nothing") == [1]  # no topology: each is a core of its own


def test_ticks_that_are_not_idle(tmp_path):
    (tmp_path / "stat").write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 400 500 6 7 8 0 0\ncpu3 1 0 0 9 9 0 0 0 0 0\nintr 5\n"
    )
    assert busy_ticks(tmp_path / "stat") == {0: 27, 3: 1}
    assert busy_ticks(tmp_path / "none") == {}


class Stop(Exception):
    pass


def test_affinity_is_set_and_put_back_also_after_an_error(machine, monkeypatch):
    set_to = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: set_to.append(sorted(cores)), raising=False)
    with pytest.raises(Stop), pinned(1, cpus=machine):
        raise Stop
    assert set_to == [[2], [0, 1, 2, 3]]
    with pinned(4, cpus=machine) as cores:  # nothing to choose
        assert cores is None
    assert len(set_to) == 2


def test_where_it_can_not_be_set_nothing_is_pinned(machine, monkeypatch):
    def refused(pid, cores):
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", refused, raising=False)
    with pinned(1, cpus=machine) as cores:
        assert cores is None
    monkeypatch.delattr(os, "sched_getaffinity")
    with pinned(1, cpus=machine) as cores:
        assert cores is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_a_benchmark_says_what_it_was_pinned_to(tmp_path, monkeypatch):
    monkeypatch.setattr(affinity, "LOOK", 0.01)
    allowed = os.sched_getaffinity(0)
    path = sp.export_onnx(randomise(Chain()), torch.randn(1, 3, 10, 10), tmp_path / "m.onnx")
    found = sp.benchmark({"a": path, "b": path}, seconds=0.02, rounds=2, pin=True)
    assert len(found.cores) == 1
    assert found.cores[0] in allowed
    assert os.sched_getaffinity(0) == allowed
    assert sp.benchmark({"a": path, "b": path}, seconds=0.02, rounds=2).cores is None
    several = Runtime(threads=2, engine="torch")  # its pool is there already, and would stay where it is
    nets = {"a": Chain(), "b": Chain()}
    x = torch.randn(1, 3, 10, 10)
    found = sp.benchmark(nets, runtime=several, example_inputs=x, seconds=0.02, rounds=2, pin=True)
    assert found.cores is None
