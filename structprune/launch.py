"""How many processes were launched, as `accelerate launch` and torchrun tell them by environment variables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import RecipeError

if TYPE_CHECKING:
    from accelerate import Accelerator


_SHARDING = {  # what `accelerate launch` sets for ways of training that leave each process a part of the weights
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_TP": "tensor parallelism",
}
_SHARDING_SIZES = tuple(f"PARALLELISM_CONFIG_{part}_SIZE" for part in ("DP_SHARD", "TP", "CP", "SP"))


def launched() -> int:
    """How many processes were launched for this run."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() else 1


def leads() -> bool:
    """Whether this process is the first of those that were launched, or the only one."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def refuse_several(what: str) -> None:
    """Raises RecipeError if several processes were launched for what one has to do alone."""
    if launched() > 1:
        raise RecipeError(
            f"{what} works in one process, and {launched()} were launched: launch one (its own threads use the cores)"
        )


def refuse_sharding() -> None:
    """Raises RecipeError if the launch asks for parts of the weights in each process.

    On a CPU Accelerate would train whole copies instead, and not say so.
    """
    kinds = [kind for name, kind in _SHARDING.items() if os.environ.get(name, "").lower() == "true"]
    sizes = [name for name in _SHARDING_SIZES if os.environ.get(name, "1") not in ("", "1")]
    if kinds or sizes:
        raise RecipeError(
            f"training under {(kinds or sizes)[0]} leaves each process a part of the weights, and a network is cut "
            "from whole ones: launch it with data parallelism alone (accelerate launch --multi_gpu)"
        )


def accelerator_of(**options: Any) -> Accelerator:
    """What connects all processes of the launch; where there is no GPU, on the CPU, also if no launcher says so.

    Left to itself, Accelerate connects processes on the CPU only where ACCELERATE_USE_CPU is set, which torchrun does
    not do.

    Args:
        options: Those of `Accelerator`.

    Returns:
        The accelerator of this process.

    Raises:
        RecipeError: The launch asks for parts of the weights in each process.
    """
    refuse_sharding()
    import torch
    from accelerate import Accelerator

    return Accelerator(cpu=launched() > 1 and not torch.accelerator.is_available(), **options)
