"""Windows with faces: the same each time, balanced, and apart."""

import sys

import pytest
import torch

from structprune.errors import RecipeError
from structprune.faces.windows import face_windows


def test_windows_are_as_promised():
    parts = face_windows(24, train=40, test=40)
    images, labels = parts["train"].tensors
    assert images.shape == (40, 3, 24, 24)
    assert images.dtype == torch.float32
    assert float(images.min()) >= -1
    assert float(images.max()) <= 1
    assert bool((images.std((1, 2, 3)) > 0.01).any())
    assert set(labels.tolist()) == {0, 1}
    assert 8 <= int(labels.sum()) <= 30
    again = face_windows(24, train=40, test=40)
    assert torch.equal(images, again["train"].tensors[0])
    others = parts["test"].tensors[0]
    assert not any(torch.equal(image, other) for image in images for other in others)


def test_without_the_package_that_brings_faces(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(RecipeError, match=r"needs scikit-image: pip install 'structprune\[samples\]'"):
        face_windows(24, train=1, test=1)
