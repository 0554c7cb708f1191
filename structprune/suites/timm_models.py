"""timm's models as the suites use them: random weights by a seed, and a random image of each model's own size."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import timm
    from timm.data import resolve_model_data_config


def build(name: str, device: str, seed: int) -> nn.Module:
    """A timm model in evaluation mode, with random weights (on "meta" with none)."""
    torch.manual_seed(seed)
    with torch.device(device):
        return timm.create_model(name, pretrained=False).eval()


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def example(model: nn.Module, device: str, seed: int) -> Tensor:
    """One random image of the model's own default size."""
    size = resolve_model_data_config(model)["input_size"]
    if device == "meta":
        return torch.empty(1, *size, device=device)
    return torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))
