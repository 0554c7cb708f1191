"""What this machine is and has for pruning and timing networks, and what is missing: `structprune doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import Field

from .json_records import JsonRecord
from .runtimes.machine import Environment, environment
from .user_folders import cache_folder

PACKAGE = "structprune"
FOR_DEVELOPERS = ("dev", "docs")


class EngineState(JsonRecord):
    """An engine on a device."""

    engine: str = Field(description="as `runtime.engine` names it")
    device: str = Field(description="as `runtime.device` names it")
    version: str | None = Field(description="what it is; `null` where it can't be used")
    missing: str = Field(description="why it can't be used; empty where it can")


class ExtraState(JsonRecord):
    """An extra of this package: `pip install 'structprune[NAME]'`."""

    extra: str = Field(description="its name")
    missing: list[str] = Field(description="the packages of it that are not installed, or too old")


class Diagnosis(JsonRecord):
    """What this machine is and has."""

    environment: Environment = Field(description="the machine and the versions of packages")
    threads: int = Field(description="that PyTorch takes, and so training and recovery")
    thread_settings: dict[str, str] = Field(description="variables of the environment that decide threads")
    gpus: list[str] = Field(description="that PyTorch can train on")
    engines: list[EngineState] = Field(description="what networks can be timed with")
    extras: list[ExtraState] = Field(description="optional parts of this package")
    cache: str = Field(description="the folder of what was measured and fetched")
    cache_problem: str = Field(description="why nothing can be kept there; empty where it can")
    notes: list[str] = Field(description="what a user should see to, a line each")


def diagnose() -> Diagnosis:
    """Looks at this machine, without timing anything.

    Returns:
        What it is, what it has, and notes on what is missing or will disturb.
    """
    import torch

    about, engines = environment(), list(_engines())
    problem = _cache_problem(cache_folder())
    extras = [ExtraState(extra=name, missing=missing) for name, missing in _extras().items()]
    return Diagnosis(
        environment=about,
        threads=torch.get_num_threads(),
        thread_settings={
            name: value
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "STRUCTPRUNE_TIMING")
            if (value := os.environ.get(name))
        },
        gpus=[torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        engines=engines,
        extras=extras,
        cache=str(cache_folder()),
        cache_problem=problem,
        notes=list(_notes(about, problem)),
    )


def _engines() -> Iterator[EngineState]:
    from .runtimes import ENGINES

    for name, engine in ENGINES.items():
        for device in engine.devices:
            missing = engine.missing(device)
            yield EngineState(
                engine=name, device=device, version=None if missing else engine.version(device), missing=missing
            )


def _extras() -> dict[str, list[str]]:
    """What is missing of each extra of the installed package, by the extra's name."""
    extras: dict[str, list[str]] = {}
    try:
        lines = requires(PACKAGE) or []
    except PackageNotFoundError:  # used from a clone, without installation
        return {}
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue
        for extra in _names(line):
            if extra in FOR_DEVELOPERS or not marker.evaluate({"extra": extra}):
                continue
            missing = extras.setdefault(extra, [])
            if not _is_there(requirement):
                missing.append(f"{requirement.name}{requirement.specifier}")
    return dict(sorted(extras.items()))


def _names(line: str) -> list[str]:
    """The extras that a requirement's marker names."""
    return [part.split("'" if "'" in part else '"')[1] for part in line.split("extra ==")[1:]]


def _is_there(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(canonicalize_name(requirement.name)), prereleases=True)
    except PackageNotFoundError:
        return False


def _cache_problem(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is a file: set STRUCTPRUNE_CACHE to a folder"
    return "" if os.access(folder, os.W_OK) else f"{folder} can't be written to: set STRUCTPRUNE_CACHE to another"


def _notes(about: Environment, problem: str) -> Iterator[str]:
    instructions = about.instructions.split()
    if "avx" in instructions and not {"avx512_vnni", "avx_vnni"} & {*instructions}:
        yield "the processor has no VNNI instructions, for which int8 is made: `export.int8` times whether it gains"
    load, cores = _load(), about.cores or 1
    if load is not None and load > 0.5 * cores:
        yield f"other programs are at work (load {load:.1f} on {cores} cores): timings now would say less"
    if problem:
        yield f"measurements can't be kept and are made anew in each run: {problem}"


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return None
