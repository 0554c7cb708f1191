"""The child process of outside.py: puts one network through structprune, from trace to a training step.

It speaks with its parent as zoo_worker.py does. What the gate says is not believed alone: the slim network is also
held against the dense one with every removed slice set to zero (where all that was cut is exact), and a fresh process
loads the folder without the dense network.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import structprune as sp  # before the packages of NETWORKS: it declares torchvision's op names
from structprune.ops import Inputs, outputs
from structprune.suites.planning import reach
from structprune.suites.worker import Notes, Record, one_line, serve

sys.path.insert(0, str(Path(__file__).parent))

from outside_networks import NETWORKS, PACKAGES  # isort: skip

TOLERANCE = 1e-3  # of float32 outputs, relative to each output's largest value
LOADER = """
import json, sys, importlib, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tools!r})
import structprune as sp, torch
for name in {modules!r}:
    importlib.import_module(name)
slim = sp.load({folder!r}).eval()
sys.path.pop(0)
from structprune.ops import Inputs, outputs
from safetensors.torch import save_file
inputs = torch.load({inputs!r}, weights_only=True)
with torch.no_grad():
    found = outputs(Inputs.of(inputs).call(slim))
save_file({{str(i): x.contiguous().clone() for i, x in enumerate(found)}}, {result!r})
"""


def outside(task: Record, notes: Notes) -> str:
    """All the steps for one network; `right` if each holds, else what does not hold is in `faults`."""
    name = task["model"]
    notes.record["package"] = PACKAGES[name]
    with notes.stage("build"):
        torch.manual_seed(task["seed"])
        model, given = NETWORKS[name]()
        model.eval()
        notes.record["params"] = sum(p.numel() for p in model.parameters())
    best = reach(model, given, "l1", task, notes)
    with notes.stage("prune"):
        slim = sp.prune(model, best.plan)
    faults: dict[str, str] = {}
    with notes.stage("gate"):
        gate = sp.verify(model, slim, best.plan, given)
        measured = gate.to_dict()
        notes.record["gate"] = {k: v for k, v in measured.items() if isinstance(v, dict)}
        notes.record["gate_passed"], notes.record["onnx"] = gate.passed, one_line_of(measured.get("onnx"))
        if not gate.passed:
            faults["gate"] = "; ".join(gate.reasons())
    for check in (zeroed, reloaded, other_batch, training_step):
        with notes.stage(check.__name__):
            try:
                told = check(model, slim, best.plan, given)
            except Exception as error:
                told = f"{type(error).__name__}: {one_line(error, 200)}"
            notes.record[check.__name__] = told or "right"
            if told and not told.startswith("not compared"):
                faults[check.__name__] = told
    notes.record["faults"] = faults
    notes.record["silent"] = bool(gate.passed and ("zeroed" in faults or "differs" in faults.get("reloaded", "")))
    return "passed" if not faults else "failed"


def one_line_of(comparison: Any) -> str:
    if not isinstance(comparison, dict):
        return str(comparison)
    return "passed" if comparison.get("passed") else str(comparison.get("detail") or "failed")[:200]


def zeroed(model: nn.Module, slim: nn.Module, plan: sp.Plan, given: Any) -> str:
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
    return differences(run(masked, given), run(slim, given))


def run(model: nn.Module, given: Any) -> list[Tensor]:
    with torch.no_grad():
        return outputs(Inputs.of(given).call(model.eval()))


def differences(wanted: list[Tensor], found: list[Tensor]) -> str:
    if [tuple(a.shape) for a in wanted] != [tuple(b.shape) for b in found]:
        return f"shape differs: {[tuple(b.shape) for b in found]} instead of {[tuple(a.shape) for a in wanted]}"
    worst = 0.0
    for a, b in zip(wanted, found, strict=True):
        if a.numel():
            scale = a.double().abs().max().clamp_min(1e-12)
            worst = max(worst, float((a.double() - b.double()).abs().max() / scale))
    return "" if worst <= TOLERANCE else f"differs by {worst:.2g} of the largest value"


def reloaded(model: nn.Module, slim: nn.Module, plan: sp.Plan, given: Any) -> str:
    """A fresh process that imported the network's package loads the folder without the dense network."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sp.save(slim, plan, folder)
        described = json.loads((Path(folder) / "plan.json").read_text()).get("architecture", {})
        if "missing" in described:
            return f"refused at save: {described['missing']}"
        inputs, result = Path(folder) / "inputs.pt", Path(folder) / "result.safetensors"
        torch.save(given, inputs)
        modules = [type(model).__module__, *_own_modules(model)]
        names = {"tools": str(Path(__file__).parent), "modules": modules, "folder": folder,
                 "inputs": str(inputs), "result": str(result)}  # fmt: skip
        child = subprocess.run([sys.executable, "-c", LOADER.format(**names)], capture_output=True, text=True,
                               timeout=300, env=os.environ)  # fmt: skip
        if child.returncode:
            return (child.stderr.strip().splitlines() or ["died"])[-1][:300]
        from safetensors.torch import load_file

        found = load_file(result)
    return differences(run(slim, given), [found[str(i)] for i in range(len(found))])


def _own_modules(model: nn.Module) -> list[str]:
    """For a network that has classes of this folder: that module, and those whose classes its code imports."""
    homes = dict.fromkeys(type(module).__module__ for module in model.modules())
    return [home for home in homes if not home.startswith("torch.")] if "outside_networks" in homes else []


def other_batch(model: nn.Module, slim: nn.Module, plan: sp.Plan, given: Any) -> str:
    """Three times the batch: the shapes of the dense network, or an error that both raise."""
    more = Inputs.of(given).map(lambda x: torch.cat([x, x, x]) if x.dim() and x.shape[0] in (1, 2) else x)
    try:
        wanted = run(model, more)
    except Exception:
        return "not compared: the dense network does not take it"
    found = run(slim, more)
    if [tuple(a.shape) for a in wanted] != [tuple(b.shape) for b in found]:
        return f"shape differs: {[tuple(b.shape) for b in found]} instead of {[tuple(a.shape) for a in wanted]}"
    return ""


def training_step(model: nn.Module, slim: nn.Module, plan: sp.Plan, given: Any) -> str:
    """One forward and backward pass: gradients that are finite, and one at least for what was cut."""
    try:
        cut = {key: p for key, p in _stepped(slim, given).items() if key in plan.keep}
    except Exception as error:
        try:
            _stepped(model, given)
        except Exception as same:
            return f"not compared: the dense network takes no step here ({type(same).__name__}: {one_line(same, 100)})"
        return f"{type(error).__name__}: {one_line(error, 200)}"
    if not any(p.grad is not None for p in cut.values()):
        return "no gradient reaches what was cut"
    broken = [key for key, p in cut.items() if p.grad is not None and not p.grad.isfinite().all()]
    return f"gradients are not finite: {broken[:3]}" if broken else ""


def _stepped(model: nn.Module, given: Any) -> dict[str, nn.Parameter]:
    """The parameters of a copy, with their gradients. Raises what the model raises, and ValueError without any loss."""
    step = copy.deepcopy(model).train()
    torch.manual_seed(0)
    found = [x for x in outputs(Inputs.of(given).call(step)) if x.requires_grad and x.is_floating_point()]
    if not found:
        raise ValueError("no output depends on a parameter")
    sum(x.float().square().mean() for x in found).backward()  # type: ignore[union-attr]
    return dict(step.named_parameters())


if __name__ == "__main__":
    serve({"outside": outside})
