"""Random inputs in the place of samples, where there are none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..graph.trials import axes_of, batch_of
from ..ops import Inputs
from .batches import BATCH, Batch


def random_batches(example: Inputs, count: int, seed: int, alike: bool = False) -> list[Batch]:
    """Draws batches of random inputs that look like an example's.

    Numbers of maps (n, channels, height, width) are noise whose amplitude falls with the spatial frequency, as that of
    photographs does (Field 1987), those of other tensors are normal. Both have the example's mean and standard
    deviation, for each place of axis 1 if there are more than two axes, or 0 and 1 where it is constant. Whole numbers
    and truth values, also such that are held as floats, and whatever there is but one of for each sample are drawn from
    the example's own: ids are such as the network knows, and masks stay masks. Tensors that have no row for each
    sample, and all that is no tensor, are the example's.

    Args:
        example: What the network was traced with.
        count: How many samples there should be, about.
        seed: Draws them.
        alike: Whether batches are of as many samples as the example has.

    Returns:
        Two batches or more, of up to `BATCH` samples each unless they are alike, or no tensor has an axis of samples.
    """
    generator = torch.Generator().manual_seed(seed)
    axes, _ = axes_of(example)
    held = batch_of(example)
    rows = min(BATCH, math.ceil(count / 2)) if axes and not alike else held

    def drawn(x: Tensor) -> Tensor:
        if not x.dim() or x.shape[0] != held or not x.numel():
            return x
        return _like(x.detach().cpu(), (rows, *x.shape[1:]), generator).to(x.device)

    return [Batch(example.map(drawn)) for _ in range(max(2, math.ceil(count / rows)))]


def _like(x: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random tensor of a shape with the values, or the moments, of another."""
    if not x.is_floating_point() or x.dim() == 1 or _is_mask(x):
        return x.flatten()[torch.randint(x.numel(), shape, generator=generator)]
    noise = torch.randn(shape, generator=generator)
    if x.dim() == 4:
        noise = _falling(noise)
    over = [axis for axis in range(x.dim()) if axis != 1] if x.dim() > 2 else [0, 1]
    mean, std = x.double().mean(over, keepdim=True), x.double().std(over, keepdim=True, correction=0)
    constant = std <= 1e-6 * mean.abs()
    mean, std = torch.where(constant, 0.0, mean), torch.where(constant, 1.0, std)
    return (mean + std * noise).to(x.dtype)


def _is_mask(x: Tensor) -> bool:
    """Whether floats say which of something counts: by infinities, by 0 and 1, or by whole numbers of a row."""
    if not torch.isfinite(x).all():
        return True
    if not x.any():  # an example that says nothing
        return False
    whole = bool((x == x.round()).all())
    return whole and (x.dim() == 2 or (set(x.unique().tolist()) == {0.0, 1.0}))


def _falling(noise: Tensor) -> Tensor:
    """Maps of white noise, with amplitudes divided by the spatial frequency, at unit variance in the mean."""
    height, width = noise.shape[-2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    maps = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(height, width))
    return maps / maps.square().mean().sqrt()
