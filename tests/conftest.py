import pytest
import torch

import structprune  # noqa: F401  (declares torchvision's op names before any test imports timm)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(2)
