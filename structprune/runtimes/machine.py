"""What a timing was measured on."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field

from .. import __version__
from ..json_records import JsonRecord

_SIMD = ("sse4", "avx", "amx", "fma", "asimd", "sve")  # flags by which runtimes choose kernels
_PACKAGES = ("structprune", "torch", "timm", "onnx", "onnxruntime", "openvino", "accelerate", "fvcore", "numpy")


class Environment(JsonRecord):
    """The machine, and the versions of the packages that a result depends on."""

    processor: str = Field(description="its name")
    instructions: str = Field(default="", description="its vector instructions, by which runtimes choose kernels")
    cores: int | None = Field(description="those that the process may use")
    system: str = Field(description="the operating system")
    python: str = Field(description="Python's version")
    packages: dict[str, str] = Field(description="versions by the package's name, or `not installed`")


def environment() -> Environment:
    """Describes the machine that this process runs on.

    Returns:
        The processor, the cores that this process may use, and versions.
    """
    return Environment(
        processor=_cpuinfo("model name") or platform.processor() or platform.machine(),
        instructions=_instructions(_cpuinfo("flags") or _cpuinfo("Features")),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        system=platform.platform(),
        python=platform.python_version(),
        packages=dict(_versions()),
    )


@cache
def _versions() -> dict[str, str]:
    """Read once, as a process stays with the versions that it has imported."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions | {"structprune": __version__}  # metadata of an installation in place may be of an earlier day


def _instructions(flags: str) -> str:
    """One name of a processor may stand for several of them, as on virtual machines."""
    return " ".join(sorted(flag for flag in flags.split() if flag.startswith(_SIMD)))


@cache
def _cpuinfo(field: str) -> str:
    """A field of the first core, where the system tells; else nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")
