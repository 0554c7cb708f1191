"""Times a network against itself: a sound benchmark finds a speedup of 1.00 inside its interval.

python tools/aa.py [--model resnet18 | --onnx FILE] [--repeats 5] [--seconds 5] [--threads 1] [--batch 1] [--pin]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import structprune as sp
from structprune.errors import StructPruneError
from structprune.recipe import ModelSpec
from structprune.runtimes import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", help="a timm model, with random weights")
    parser.add_argument("--onnx", type=Path, help="an ONNX file instead, for example runs/quickstart/dense.onnx")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pin", action="store_true", help="stay on the idlest cores, as many as there are threads")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            time_against_itself(options, options.onnx or _export(options.model, Path(folder)))
    except StructPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def time_against_itself(options: argparse.Namespace, file: Path) -> None:
    machine = environment()
    print(f"{machine.processor}, {machine.cores} cores; {options.threads} threads, batch {options.batch}")
    covered = 0
    for repeat in range(options.repeats):
        result = sp.benchmark(
            {"dense": file, "again": file},
            batch=options.batch,
            threads=options.threads,
            seconds=options.seconds,
            pin=options.pin,
        )
        low, high = result.ci95["again"]
        covered += low <= 1 <= high
        print(
            f"{repeat + 1}: {result.ms['dense']:.3f} ms and {result.ms['again']:.3f} ms, ratio "
            f"{result.speedup['again']:.4f}, 95 % interval {low:.4f} to {high:.4f}, {result.turns} turns"
        )
    print(f"1.00 lies inside the interval in {covered} of {options.repeats}")


def _export(name: str, folder: Path) -> Path:
    import torch

    from structprune.messages import unknown
    from structprune.models import build_model, resolve_model_data_config
    from structprune.timm_names import architectures

    if name not in architectures():
        raise sp.errors.RecipeError(unknown("model", name, architectures()))
    model = build_model(ModelSpec(name=name), seed=0)
    x = torch.zeros(1, *resolve_model_data_config(model)["input_size"])
    return sp.export_onnx(model, x, folder / "dense.onnx")


if __name__ == "__main__":
    main()
