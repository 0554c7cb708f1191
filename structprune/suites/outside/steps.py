"""What is tried with each slim network beside the gate, which is not believed alone.

Each step is a function of the dense and the slim network, the plan and the inputs. It returns what is wrong, a text
that begins with `not compared` where the step does not apply, or nothing; what it raises is wrong too.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import structprune as sp

from ...ops import Inputs, outputs
from ..as_users import USERS
from ..worker import error_line

TOLERANCE = 1e-3  # of float32 outputs, relative to each output's largest value
_HOME = Path(__file__).parents[3]  # where a child imports this package from, as its parent does
LOADER = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
import structprune as sp, torch
from structprune.suites.as_users import USERS, users
for name in {modules!r}:
    users(name.partition(".")[2]) if name.startswith(USERS + ".") else importlib.import_module(name)
slim = sp.load({folder!r}).eval()
from structprune.ops import Inputs, outputs
from safetensors.torch import save_file
inputs = torch.load({inputs!r}, weights_only=True)
with torch.no_grad():
    tensors = outputs(Inputs.of(inputs).call(slim))
save_file({{str(i): x.contiguous().clone() for i, x in enumerate(tensors)}}, {result!r})
"""


def zeroed(model: nn.Module, slim: nn.Module, plan: sp.Plan, inputs: Any) -> str:
    """The dense network with every removed slice set to zero, where that is what the plan means."""
    inexact = [name for name, group in plan.groups.items() if not group.get("exact", True)]
    if inexact or plan.statistics:
        return f"not compared: {len(inexact) or len(plan.statistics)} cuts change a statistic"
    masked = copy.deepcopy(model)
    state = {**dict(masked.named_parameters()), **dict(masked.named_buffers())}
    with torch.no_grad():
        for key, axes in plan.keep.items():
            if "running_var" in key or key not in state:
                continue
            for axis, kept in axes.items():
                if kept and isinstance(kept[0], list):
                    continue  # a grouped convolution's inputs: their filters are zero already
                gone = torch.ones(state[key].shape[int(axis)], dtype=torch.bool)
                gone[kept] = False
                state[key].index_fill_(int(axis), gone.nonzero().flatten(), 0)
    return differences(run(masked, inputs), run(slim, inputs))


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        return outputs(Inputs.of(inputs).call(model.eval()))


def differences(expected: list[Tensor], actual: list[Tensor]) -> str:
    if [tuple(a.shape) for a in expected] != [tuple(b.shape) for b in actual]:
        return f"shape differs: {[tuple(b.shape) for b in actual]} instead of {[tuple(a.shape) for a in expected]}"
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        if a.numel():
            scale = a.double().abs().max().clamp_min(1e-12)
            worst = max(worst, float((a.double() - b.double()).abs().max() / scale))
    return "" if worst <= TOLERANCE else f"differs by {worst:.2g} of the largest value"


def reloaded(model: nn.Module, slim: nn.Module, plan: sp.Plan, inputs: Any) -> str:
    """A fresh process that imported the network's package loads the folder without the dense network."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sp.save(slim, plan, folder)
        architecture = json.loads((Path(folder) / "plan.json").read_text()).get("architecture", {})
        if "missing" in architecture:
            return f"refused at save: {architecture['missing']}"
        place, result = Path(folder) / "inputs.pt", Path(folder) / "result.safetensors"
        torch.save(inputs, place)
        modules = [type(model).__module__, *_own_modules(model)]
        names = {"modules": modules, "folder": folder, "inputs": str(place), "result": str(result)}
        child = subprocess.run([sys.executable, "-c", LOADER.format(**names)], capture_output=True, text=True,
                               timeout=300, cwd=_HOME)  # fmt: skip
        if child.returncode:
            return (child.stderr.strip().splitlines() or ["died"])[-1][:300]
        from safetensors.torch import load_file

        outputs_there = load_file(result)
    return differences(run(slim, inputs), [outputs_there[str(i)] for i in range(len(outputs_there))])


def _own_modules(model: nn.Module) -> list[str]:
    """For a network that has classes of `networks`: that module, and those whose classes its code imports."""
    homes = dict.fromkeys(type(module).__module__ for module in model.modules())
    is_own = any(home.startswith(f"{USERS}.") for home in homes)
    return [home for home in homes if not home.startswith("torch.")] if is_own else []


def other_batch(model: nn.Module, slim: nn.Module, plan: sp.Plan, inputs: Any) -> str:
    """Three times the batch: the shapes of the dense network, or an error that both raise."""
    more = Inputs.of(inputs).map(lambda x: torch.cat([x, x, x]) if x.dim() and x.shape[0] in (1, 2) else x)
    try:
        expected = run(model, more)
    except Exception:
        return "not compared: the dense network does not take it"
    actual = run(slim, more)
    if [tuple(a.shape) for a in expected] != [tuple(b.shape) for b in actual]:
        return f"shape differs: {[tuple(b.shape) for b in actual]} instead of {[tuple(a.shape) for a in expected]}"
    return ""


def training_step(model: nn.Module, slim: nn.Module, plan: sp.Plan, inputs: Any) -> str:
    """One forward and backward pass: gradients that are finite, and one at least for what was cut."""
    try:
        cut = {key: p for key, p in _stepped(slim, inputs).items() if key in plan.keep}
    except Exception as error:
        try:
            _stepped(model, inputs)
        except Exception as same:
            return f"not compared: the dense network takes no step here ({error_line(same, 100)})"
        return error_line(error, 200)
    if not any(p.grad is not None for p in cut.values()):
        return "no gradient reaches what was cut"
    broken = [key for key, p in cut.items() if p.grad is not None and not p.grad.isfinite().all()]
    return f"gradients are not finite: {broken[:3]}" if broken else ""


def _stepped(model: nn.Module, inputs: Any) -> dict[str, nn.Parameter]:
    """The parameters of a copy, with their gradients. Raises what the model raises, and ValueError without any loss."""
    step = copy.deepcopy(model).train()
    torch.manual_seed(0)
    floats = [x for x in outputs(Inputs.of(inputs).call(step)) if x.requires_grad and x.is_floating_point()]
    if not floats:
        raise ValueError("no output depends on a parameter")
    sum(x.float().square().mean() for x in floats).backward()  # type: ignore[union-attr]
    return dict(step.named_parameters())
