import structprune  # noqa: F401, I001  (first: it declares torchvision's op names before any test imports timm)
import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(1)  # the networks are tiny, and other work may have the second core
