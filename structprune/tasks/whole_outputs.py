"""Outputs and their quality all at once, for outputs that fit into memory: top-1 accuracy, agreement, divergence.

A `Judge` measures the same batch by batch.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..modules import evaluating


def predict(model: nn.Module, images: Tensor, batch_size: int = 32) -> Tensor:
    """Runs a classifier on images in evaluation mode, where its parameters are.

    Args:
        model: The network.
        images: Shape (n, ...).
        batch_size: Images at a time.

    Returns:
        Logits of shape (n, classes), on the CPU.
    """
    device = next(model.parameters()).device
    with evaluating(model):
        return torch.cat([model(batch.to(device)).cpu() for batch in images.split(batch_size)])


def predict_onnx(path: str | Path, images: Tensor, batch_size: int = 32) -> Tensor:
    """Runs a classifier's ONNX file of one input on images, in onnxruntime on the CPU.

    Args:
        path: The file.
        images: Shape (n, ...).
        batch_size: Images at a time.

    Returns:
        Logits of shape (n, classes).
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.cat([torch.from_numpy(session.run(None, {name: b.numpy()})[0]) for b in images.split(batch_size)])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Measures top-1 accuracy.

    Args:
        logits: Shape (n, classes).
        labels: Class numbers, shape (n,).

    Returns:
        The share of images whose highest logit is their label's.
    """
    return float((logits.argmax(1) == labels).float().mean())


def agreement(dense: Tensor, slim: Tensor) -> tuple[float, float]:
    """Measures how alike the outputs of two classifiers are.

    Args:
        dense: Logits of the dense network, shape (n, classes).
        slim: Logits of the slim network, of the same shape.

    Returns:
        Top-1 agreement as a share of the images, and the mean KL(dense ‖ slim) in nats.
    """
    same = float((dense.argmax(1) == slim.argmax(1)).float().mean())
    divergence = F.kl_div(slim.log_softmax(1), dense.log_softmax(1), log_target=True, reduction="batchmean")
    return same, float(divergence)
