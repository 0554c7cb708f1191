"""Joules from a made-up powercap folder."""

import pytest
import torch

import structprune as sp
from structprune.runtimes import energy, latency
from structprune.runtimes.energy import available, joules_per_run
from tests.example_networks import Chain, randomise


def domain(root, number, name, value, most=1000_000):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / "energy_uj").write_text(f"{value}\n")
    return folder / "energy_uj"


def test_packages_are_summed_and_counters_wrap_around(tmp_path):
    first = domain(tmp_path, "0", "package-0", 900_000)
    second = domain(tmp_path, "1", "package-1", 100_000)
    domain(tmp_path, "0:0", "core", 5)  # a part of the first package
    whole = domain(tmp_path, "2", "psys", 5)  # contains both

    def run():
        for file, spent in ((first, 300_000), (second, 200_000), (whole, 500_000)):
            file.write_text(str((int(file.read_text()) + spent) % 1000_000))

    assert available(tmp_path)
    assert joules_per_run(run, 0, tmp_path) == pytest.approx(
        0.5
    )  # the first went from 900 000 over 1 000 000 to 200 000
    assert int(first.read_text()) == 200_000


def test_without_a_counter_that_can_be_read_there_are_no_joules(tmp_path):
    assert joules_per_run(lambda: None, 0, tmp_path / "none") is None
    file = domain(tmp_path, "0", "package-0", 1)
    file.write_text("not a number")
    assert not available(tmp_path)
    assert joules_per_run(lambda: None, 0, tmp_path) is None


def test_a_benchmark_has_joules_where_there_are_some(tmp_path, monkeypatch):
    path = sp.export_onnx(randomise(Chain()), torch.randn(1, 3, 10, 10), tmp_path / "m.onnx")
    monkeypatch.setattr(latency, "available", lambda: False)
    assert sp.benchmark({"a": path, "b": path}, seconds=0.02, rounds=2, energy=True).joules is None
    domain(tmp_path, "0", "package-0", 1)
    monkeypatch.setattr(latency, "available", lambda: True)
    monkeypatch.setattr(latency, "joules_per_run", lambda run, seconds: energy.joules_per_run(run, seconds, tmp_path))
    assert sp.benchmark({"a": path, "b": path}, seconds=0.02, rounds=2).joules is None  # not asked for
    assert sp.benchmark({"a": path, "b": path}, seconds=0.02, rounds=2, energy=True).joules == {"a": 0.0, "b": 0.0}
