"""Seeds for the parts of a run, derived from the run's own, that every generator accepts."""

from __future__ import annotations

import hashlib

LIMIT = 2**32  # NumPy's generator takes no seed from here on


def derived(seed: int, number: int | None = None) -> int:
    """A seed below 2**32 for the `number`th part of what `seed` decides, or for the whole without a number.

    Small seeds are multiplied and added to, as they always were; the digits of large ones are hashed.
    """
    plain = seed if number is None else seed * 100_003 + number
    if 0 <= plain < LIMIT:
        return plain
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def seed_torch(seed: int) -> None:
    """Seeds torch's generators: the CPU's and, where there is an accelerator, its own.

    `torch.manual_seed` notes its caller's stack for each kind of device that is not there, in case it comes: for
    networks that are seeded before each forward pass, that took longer than the pass.
    """
    import torch

    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
