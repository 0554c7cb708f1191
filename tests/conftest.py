import structprune  # noqa: F401, I001  (first: timm can then be imported beside a torchvision that does not fit torch)
import os

import pytest
import torch

from structprune.criteria import CRITERIA


os.environ["STRUCTPRUNE_TIMING"] = "off"  # a plan that is given no align times nothing, here and in processes started


def pytest_collectstart(collector):
    """Tensors that a module of tests draws are the same ones each time."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _registry():
    """What a test registers is gone after it."""
    with CRITERIA.restored():
        yield


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(1)  # the networks are tiny, and other work may have the second core
