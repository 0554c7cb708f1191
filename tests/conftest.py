import structprune  # noqa: F401, I001  (first: timm can then be imported beside a torchvision that does not fit torch)
import gc
import os

import pytest
import torch

from structprune.criteria import CRITERIA
from structprune.seeds import seed_torch
from tests.run.small_network import short_turns


os.environ["STRUCTPRUNE_TIMING"] = "off"  # a plan that is given no align times nothing, here and in processes started
os.environ["OMP_WAIT_POLICY"] = (
    "PASSIVE"  # processes started beside other tests: threads that wait leave the cores to those
)


def pytest_collectstart(collector):
    """Tensors that a module of tests draws are the same ones each time."""
    if isinstance(collector, pytest.Module):
        seed_torch(0)


@pytest.fixture(autouse=True)
def _seed():
    seed_torch(0)


@pytest.fixture(autouse=True)
def _registry():
    """What a test registers is gone after it."""
    with CRITERIA.restored():
        yield


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(1)  # the networks are tiny, and other work may have the second core


@pytest.fixture(scope="module", autouse=True)
def _garbage():
    """Collecting garbage, as each training does at its end, goes through what a module of tests makes, and not through
    the million objects of torch, of timm and of all other modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def _short_turns():
    """For tests of runs whose times nobody asks for: a turn of their benchmarks has few runs."""
    with short_turns():
        yield
