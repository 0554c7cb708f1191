"""One training loop on Accelerate, with timm's optimisers and schedules, that resumes to the same result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from .._compat import declare_torchvision_ops
from ..copying import release
from ..errors import RecipeError
from ..modules import tensors
from ..recipe import TrainSpec
from ..store import files

_SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP")  # Accelerate's names

Progress = Callable[[int, int, dict[str, float]], None]  # step, steps in all, what to show


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    spec: TrainSpec,
    *,
    seed: int,
    checkpoint: Path,
    progress: Progress = lambda step, steps, shown: None,
) -> nn.Module:
    """Trains `model` in place by cross-entropy and returns it, on the CPU and in evaluation mode.

    Runs where Accelerate says: on its device, and under `accelerate launch` on all of its processes, which average
    their gradients. What Accelerate hangs on a module for that is taken away again, or a network cut from this one
    would be taken for prepared (see `copying`).
    After every epoch weights and optimiser state go to `checkpoint` (safetensors); if that file is there already,
    training goes on from it. Each epoch is seeded by its number, so an interrupted run ends with the weights
    of an uninterrupted one.
    """
    declare_torchvision_ops()
    from accelerate import Accelerator
    from accelerate.utils import broadcast, set_seed
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    accelerator = Accelerator()
    if (kind := accelerator.distributed_type.value) in _SHARDED:
        raise RecipeError(
            f"training under {kind} leaves each process a part of the weights, and a network is cut from whole ones: "
            "launch it with data parallelism alone (accelerate launch --multi_gpu)"
        )
    for part in model.modules():
        release(part)  # another's marks: it would be neither moved nor wrapped
    set_seed(seed)
    loader = DataLoader(TensorDataset(images, labels), spec.batch_size, shuffle=True, drop_last=True)
    optimizer = create_optimizer_v2(model, opt=spec.optimizer, lr=spec.lr, weight_decay=spec.weight_decay)
    wrapped, prepared, loader = accelerator.prepare(model, optimizer, loader)
    steps = len(loader)
    if not steps:
        raise RecipeError(f"batch_size={spec.batch_size} is more than the {len(images)} training images")
    schedule = None
    if spec.schedule == "cosine":
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=spec.epochs,
            warmup_epochs=spec.warmup_epochs,
            warmup_lr=spec.lr / 100,
            min_lr=spec.lr / 100,
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
    first = _restore(checkpoint, model, optimizer)
    for epoch in range(first, spec.epochs):
        set_seed(seed * 100_003 + epoch)
        wrapped.train()
        for step, (x, y) in enumerate(loader):
            update = epoch * steps + step
            if schedule is not None:
                schedule.step_update(update)
            loss = F.cross_entropy(wrapped(x), y)
            prepared.zero_grad()
            accelerator.backward(loss)
            prepared.step()
            progress(update + 1, spec.epochs * steps, {"epoch": epoch + 1, "loss": float(loss.detach())})
        if accelerator.is_main_process:
            _store(checkpoint, model, optimizer, epoch + 1)
        accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        for buffer in model.buffers():  # the last step's statistics are each process's own
            buffer.copy_(broadcast(buffer))
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    accelerator.free_memory()
    for part in model.modules():
        release(part)
    model.zero_grad()
    return model.cpu().eval()


def _store(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    held = {f"model.{key}": tensor.detach().cpu().contiguous() for key, tensor in tensors(model).items()}
    numbers: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                held[f"optimizer.{index}.{name}"] = value.detach().cpu().contiguous().clone()
            else:
                numbers[f"{index}.{name}"] = value
    metadata = {"epochs": str(epochs), "numbers": json.dumps(numbers)}
    files.write(path, lambda aside: save_file(held, aside, metadata))


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Loads a checkpoint if there is one; the number of epochs that are done."""
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as stored, torch.no_grad():
        metadata = stored.metadata()
        state: dict[int, dict[str, Any]] = {}
        own = tensors(model)
        for key in stored.keys():  # noqa: SIM118 (not a dict)
            kind, _, rest = key.partition(".")
            if kind == "model":
                own[rest].copy_(stored.get_tensor(key))
            else:
                index, _, name = rest.partition(".")
                state.setdefault(int(index), {})[name] = stored.get_tensor(key)
    for key, value in json.loads(metadata["numbers"]).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    return int(metadata["epochs"])
