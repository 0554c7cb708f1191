"""Runs on a local Ray cluster; skipped where Ray is not installed."""

import sys
from dataclasses import replace

import pytest

from structprune.errors import RecipeError
from structprune.sweep import sweep
from structprune.sweep.ray_cluster import on_ray
from tests.sweep.small_sweep import quiet, write_sweep
from tests.sweep.test_processes import BAD, LONG, job_of


def test_without_ray_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match=r"pip install 'structprune\[ray\]'"):
        on_ray()


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, object_store_memory=80 * 2**20, log_to_driver=False, include_dashboard=False)
    yield ray
    ray.shutdown()


@pytest.mark.thorough
def test_jobs_end_as_they_do_here_and_an_exception_ends_those_at_work(cluster, tmp_path):
    """The first job ends at once; a lost one says so; the exception comes before the long one is over."""
    lost = replace(job_of(tmp_path, "lost"), directory=tmp_path / "nowhere")
    jobs, endings = [job_of(tmp_path, "bad", BAD), lost, job_of(tmp_path, "long", LONG)], {}
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for job, ending in on_ray(2)(jobs):
            endings[job.name] = ending.code
            if len(endings) == 2:
                raise KeyboardInterrupt
    assert endings == {"bad": 2, "lost": 1}
    assert "unknown criterion 'l11'" in jobs[0].log.read_text()
    assert "error: " in lost.log.read_text()
    assert "nowhere" in lost.log.read_text()
    assert not (tmp_path / "long" / "report.json").exists()
    assert cluster.is_initialized()  # as it was before


@pytest.mark.thorough
def test_a_sweep_on_the_cluster_ends_in_its_table(cluster, tmp_path):
    path = write_sweep(tmp_path, {"grid": {"prune.criterion": ["l1", "random"]}, "seeds": 1, "timing_seconds": 0.02})
    report = sweep(path, tmp_path / "out", executor=on_ray(2), reporter=quiet())
    assert [(arm.arm, arm.n, arm.failed) for arm in report.arms] == [("l1", 1, 0), ("random", 1, 0)]
    assert "l1" in (tmp_path / "out" / "sweep.md").read_text()
