"""One recipe from start to end: train, plan, prune, fine-tune, gate, export, time, report."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from .bench import Runtime, benchmark, environment, time_also, time_layers
from .bench.session import made_up_inputs
from .cost import CostModel, Deadline, learn_cost, learn_steps, plan_measured, wants_latency
from .criteria import CRITERIA, scan_images, score, sensitivity, unscorable
from .data.tensors import Tensors as Data
from .data.tensors import load_tensors as load_data
from .errors import BudgetError, GateError, RecipeError
from .export import export_onnx, opset_of, quantize
from .graph import DependencyGraph, trace
from .modules import replace_tensors, tensors
from .options import checked, flag, instance, optional, several
from .plan import plan as make_plan
from .progress import Reporter
from .recipe import Recipe, read_recipe, read_yaml
from .records import Plan, Scores, Sensitivity
from .recover import recover
from .report import build_report, disagreements, macs_or_none, measured_quality, render_html
from .store import files, save
from .surgery import prune
from .train import predict, predict_onnx, train_stage
from .verify import expanded, verify

INT8_IMAGES, INT8_BATCH = 128, 8  # on which the ranges of activations are taken
LEARNING = 0.75  # of the time for planning may have gone when costs are learned; the rest is for timing plans
WIDTHS_BY = "l1"  # the criterion of the plan whose widths a layer-by-layer criterion ranks for
_RUN_FILES = ("recipe.yaml", "plan.json", "report.json", "slim.safetensors", "slim.onnx", "dense.onnx")
_ARTEFACTS = ("dense.onnx", "slim.onnx", "slim.safetensors", "plan.json")


@checked(
    recipe=instance((str, os.PathLike, Recipe), "a path, or what read_recipe gives"),
    out=optional(instance((str, os.PathLike), "a path")),
    overrides=several(instance(str, ""), "strings a.b=value, in a list"),
    resume=flag,
    plan_only=flag,
    reporter=optional(instance(Reporter, "a Reporter")),
)
def run(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    plan_only: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Runs a recipe into the folder `out` (default: runs/NAME, NAME being the recipe's) and returns its report.

    `overrides` are strings `a.b=value`. With `resume`, a run that was interrupted in `out`, or stopped after its
    plan, goes on from its last finished step. With `plan_only` it stops after plan.json and returns the plan as
    a dict. Bad input raises a StructPruneError before anything is written; a slim network that is not the one
    planned raises GateError, and leaves a report.json that says why (but where it does not run) and no slim artefact.
    """
    name = Path(recipe).stem if isinstance(recipe, (str, Path)) else "run"
    checked = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    if out is not None and not str(out).strip():
        raise RecipeError("the output folder's name is empty: give one by --out, or leave it out for runs/NAME")
    folder = Path(out) if out is not None else Path("runs") / name
    finished = _claim(folder, checked, resume)
    if finished is not None:
        return finished
    return _Run(checked, folder, name, reporter or Reporter()).execute(plan_only)


def rehearse(recipe: Recipe, reporter: Reporter | None = None) -> None:
    """All that a run does before it writes anything: raises what is wrong with the recipe, its model, data or budget.

    What widths cost is learned here, if the budget asks for it, and kept on disk.
    """
    _Run(recipe, Path(), "", reporter or Reporter()).begin()


def _claim(folder: Path, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """Checks that `folder` can take this run; the report of a finished run that is to be resumed."""
    existing = folder
    try:
        while not existing.exists():
            existing = existing.parent
        is_folder = existing.is_dir()
    except (OSError, ValueError) as error:
        shown = repr(str(folder))[:200]
        raise RecipeError(f"the output folder can't be {shown} ({error}): give another by --out") from error
    if not is_folder:
        raise RecipeError(f"the output folder {folder} can't be made, as {existing} is a file: give another by --out")
    if not os.access(existing, os.W_OK):
        raise RecipeError(
            f"the output folder {folder} can't be written ({existing} is read-only): give another by --out"
        )
    present = [name for name in _RUN_FILES if (folder / name).exists()]
    if not present:
        if resume:
            raise RecipeError(f"{folder} holds no run to resume: leave --resume out, or give its folder by --out")
        return None
    if not resume:
        state = "a run" if "report.json" in present else "an interrupted run"
        raise RecipeError(f"{folder} already holds {state} ({present[0]}): give another --out, or --resume to go on")
    stored = folder / "recipe.yaml"
    if not stored.is_file() or read_yaml(stored) != recipe.model_dump(mode="json"):
        raise RecipeError(f"{folder} holds a run of another recipe: resume it with the same recipe and --set options")
    if "report.json" in present:
        try:
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            passed = report["gate"]["passed"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecipeError(f"{folder / 'report.json'} is damaged ({error}): give another folder by --out") from error
        if not passed:
            raise GateError(f"the run in {folder} ended with a failed gate: see its report.json")
        return report
    return None


class _Run:
    """The stages of one run and what they pass on. Work in progress lies in a hidden folder of the output."""

    def __init__(self, recipe: Recipe, folder: Path, name: str, reporter: Reporter) -> None:
        self.recipe, self.folder, self.name, self.reporter = recipe, folder, name, reporter
        self.work = folder / ".work"
        self.runtime = recipe.runtime.runtime()
        self.steps: dict[str, int] = {}
        self.unsure: list[
            str
        ] = []  # notes of steps that timings do not agree on, and of costs that there was no time for
        self.spent = 0.0  # seconds of planning
        self.cost: CostModel | None = None
        self.found: dict[str, Any] = {}

    def begin(self) -> tuple[nn.Module, Data, DependencyGraph, str, Plan | None]:
        """Model, data and graph, after a rehearsal of the plan: an impossible budget is met before any training.

        And a note on the graph's form, and the plan of the run that is resumed. Nothing is written.
        """
        from .models import build_model

        recipe = self.recipe
        _seed(recipe.seed)
        with self.reporter.console.status(f"{recipe.model.name}: building and tracing"):  # no line before an error's
            model = build_model(recipe.model, recipe.seed)
            data = load_data(recipe.data, model, recipe.seed)
            form = "module" if recipe.prune.form == "auto" else recipe.prune.form
            if (planned := self._planned()) is not None:
                form = "module" if planned.program is None else "graph"
            graph = trace(model, data.example[:1], form=form)
        note = ""
        if planned is None:
            graph, note = self._meets(graph, model, data)
        return model, data, graph, note, planned

    def execute(self, plan_only: bool) -> dict[str, Any]:
        recipe, say = self.recipe, self.reporter
        model, data, graph, note, planned = self.begin()
        self._open()
        say.stage(f"{recipe.model.name}: {len(graph.groups)} groups of channels, {len(graph.barriers)} barriers")

        if recipe.train:
            train_stage(model, recipe.train, data, self.work, "dense", recipe.seed, say)
        plan = self._plan(graph, note, data, planned)
        if plan_only:
            return json.loads(plan.to_json())

        say.stage(f"measuring quality on {len(data.test)} held-out images")
        dense_logits = predict(model, data.test)
        slim = prune(model, plan)
        quality = {"pruned": self._predict(slim, data)}
        gates, reference = {}, model
        steps: list[dict[str, Any]] = []
        if recipe.recover or recipe.finetune:
            say.stage("checking the network as cut, before recovery and fine-tuning")
            gates["pruned"] = verify(model, slim, plan, data.example)
            if gates["pruned"].passed:
                slim, steps = self._recover(model, slim, plan, data, dense_logits)
                if steps:
                    quality["recovered"] = self._predict(slim, data)
                if recipe.finetune:
                    train_stage(slim, recipe.finetune, data, self.work, "slim", recipe.seed, say)
                reference = expanded(model, slim, plan)
        quality["final"] = self._predict(slim, data)

        say.stage("exporting dense and slim to ONNX")
        self._step("dense.onnx", lambda path: export_onnx(model, data.example, path))
        export_onnx(slim, data.example, self.work / "slim.onnx")
        save(slim, plan, self.work)
        say.stage("acceptance gate: masked dense = slim = reloaded = ONNX")
        gates["final"] = verify(reference, slim, plan, data.example, folder=self.work, onnx=self.work / "slim.onnx")
        counts = {kind: macs_or_none(net, data.example[:1]) for kind, net in (("dense", model), ("slim", slim))}
        problems = disagreements(gates, plan, counts)

        latency, layers, int8, also = None, None, {}, []
        if not problems:
            int8 = self._quantise(data, dense_logits) if recipe.int8 else {}
            nets = {"dense": model, "slim": slim}
            timed = self._opened(dataclasses.replace(self.runtime, dtype="float32"), nets, data)
            timed |= {name: self.work / f"{name}.onnx" for name in int8 if self.runtime.files}
            say.stage(f"timing {', '.join(timed)} in {self.runtime.engine}, {recipe.bench.seconds:g} s")
            with say.bar("timing") as update:
                latency = benchmark(
                    timed,
                    runtime=self.runtime,
                    seconds=recipe.bench.seconds,
                    pin=recipe.bench.pin,
                    energy=True,
                    progress=update,
                )
            suffix = "-int8" if recipe.runtime.dtype == "int8" else ""
            layers = time_layers(
                {kind: self.work / f"{kind}{suffix}.onnx" for kind in nets},
                batch=recipe.runtime.batch if self.runtime.device == "cpu" else 1,  # which a CPU runs here
                threads=recipe.runtime.threads,
                seconds=recipe.bench.seconds / 4,
            )
            if recipe.also:
                say.stage(f"timing dense and slim on other runtimes, {recipe.bench.seconds:g} s on each")
                with say.bar("timing") as update:
                    also = time_also(
                        recipe.also,
                        lambda runtime: self._opened(runtime, nets, data),
                        seconds=recipe.bench.seconds,
                        pin=recipe.bench.pin,
                        progress=update,
                    )
        report = build_report(
            recipe,
            graph,
            plan,
            gates,
            measured_quality(recipe, data, dense_logits, quality),
            counts,
            {kind: (self.work / f"{kind}.onnx").stat().st_size for kind in ("dense", "slim")},
            steps,
            latency,
            layers,
            int8,
            also,
            environment(),
            opset_of(self.work / "slim.onnx"),
        )
        if problems:
            report["gate"]["passed"] = False
        self._close(report, passed=not problems)
        if problems:
            raise GateError(
                f"the slim network is not the one planned, so no slim artefact was kept: {'; '.join(problems)}. "
                f"{self.folder / 'report.json'} has the measurements; please report this model"
            )
        return report

    # --- stages -------------------------------------------------------------------------------------------

    def _meets(self, graph: DependencyGraph, model: nn.Module, data: Data) -> tuple[DependencyGraph, str]:
        """The graph, or that of the other form, and why, if only it can meet the budget and the recipe allows it."""
        try:
            self._rehearse(graph)
        except BudgetError:
            if self.recipe.prune.form != "auto":
                raise
            freer = trace(model, data.example[:1], form="graph")
            self._rehearse(freer)
            note = f"the slim network is an fx.GraphModule: as a {type(model).__name__} it can't meet the budget"
            if graph.barriers:
                worst = max(graph.barriers, key=lambda barrier: barrier.channels)
                note += (
                    f", with {len(graph.barriers)} barriers, such as {worst.op} in {worst.module or 'forward'} "
                    f"({worst.line}): {worst.reason}"
                )
            return freer, note
        return graph, ""

    def _rehearse(self, graph: DependencyGraph) -> None:
        spec = self.recipe.prune
        if not self.runtime.files:  # what can't be compiled is said now, and not after the training
            self.runtime.open(self.runtime.prepare(graph.model, graph.inputs, self.work))
        if spec.align == "auto" and not self.steps:
            what = "finding the channel counts that this machine's runtime is fast with"
            with self._bar(what) as update, self._planning(1 - LEARNING) as deadline:
                self.steps = learn_steps(self.runtime, deadline=deadline, progress=update, tell=self.unsure.append)
        if wants_latency(spec.budget.as_dict()):
            what = f"timing the network's kernels at other widths (all planning: {spec.planning_seconds:g} s at most)"
            with self._bar(what) as update, self._planning(LEARNING) as deadline:
                self.cost = learn_cost(
                    graph,
                    self.runtime,
                    steps=self.steps,
                    deadline=deadline,
                    progress=update,
                    tell=self.unsure.append,
                )
        left_out = unscorable(graph, spec.criterion)
        curve = {group.name: {1: 1.0, group.units: 0.0} for group in graph.groups}
        flat = Scores(
            spec.criterion,
            {group.name: np.ones(group.units) for group in graph.groups if group.name not in left_out},
            left_out,
            sensitivity=Sensitivity(curve) if spec.allocation == "sensitivity" else None,
        )
        self._make_plan(graph, flat, self.cost, "uniform" if spec.allocation == "knapsack" else spec.allocation)

    def _make_plan(
        self, graph: DependencyGraph, scores: Scores, cost: CostModel | None, allocation: str | None = None
    ) -> Plan:
        spec = self.recipe.prune
        return make_plan(
            graph,
            scores,
            spec.budget.as_dict(),
            allocation=allocation or spec.allocation,
            min_channels=spec.min_channels,
            max_ratio=spec.max_ratio,
            align=self.steps if spec.align == "auto" else spec.align,
            ignore=spec.ignore,
            cost=cost,
        )

    def _planned(self) -> Plan | None:
        """The plan that an interrupted run has made."""
        path = self.folder / "plan.json"
        return Plan.read(path) if path.is_file() else None

    def _plan(self, graph: DependencyGraph, note: str, data: Data, planned: Plan | None) -> Plan:
        """Scores and plans, unless that is done."""
        if planned is not None:
            plan = planned
        else:
            plan = self._measured(graph, self._score(graph, data), data)
            plan.notes += [*self.unsure, *([note] if note else [])]
            files.write_text(self.folder / "plan.json", plan.to_json())
        cut, budget = plan.macs["dense"] / plan.macs["slim"], self.recipe.prune.budget.as_dict()
        self.reporter.stage(
            f"plan: {len(plan.groups)} groups, MACs {plan.macs['dense']:,} to {plan.macs['slim']:,} ({cut:.2f}× cut)",
            budget=budget,
        )
        self._say_notes(plan.notes)
        return plan

    def _measured(self, graph: DependencyGraph, scores: Scores, data: Data) -> Plan:
        """A plan; if a budget is of latency, one whose network has been timed to meet it."""
        budget = self.recipe.prune.budget.as_dict()
        if self.cost is None:
            return self._make_plan(graph, scores, None)
        self._step("dense.onnx", lambda path: export_onnx(graph.model, data.example, path))

        def tell(told: dict[str, Any]) -> None:
            low, high = told["ci95"]
            self.reporter.stage(
                f"planned for {told['predicted']:.2f}×, measured {told['measured']:.2f}× ({low:.2f} to {high:.2f})",
                **told,
            )

        if scores.widths is not None:  # ranked for these widths, which a measured plan has found: see _score
            plan = self._make_plan(graph, scores, self.cost)
            plan.latency = {**(plan.latency or {}), **self.found}
            return plan
        with self._bar("planning and timing slim networks") as update, self._planning() as deadline:
            plan = plan_measured(
                graph,
                budget,
                self.cost,
                lambda cost: self._make_plan(graph, scores, cost),
                dense=self.work / "dense.onnx",
                deadline=deadline,
                tell=tell,
                progress=update,
            )
        assert plan.latency is not None
        self.cost = self.cost.corrected(plan.latency["correction"])
        self.found = {key: plan.latency[key] for key in ("rounds", "correction")}
        return plan

    def _score(self, graph: DependencyGraph, data: Data) -> Scores:
        """Scores by the recipe's criterion, with a scan if the allocation needs one.

        What ranks layer by layer needs widths first: those of a plan by `l1`.
        """
        spec, seed = self.recipe.prune, self.recipe.seed
        chosen = CRITERIA[spec.criterion]
        base = WIDTHS_BY if "widths" in chosen.needs else spec.criterion
        memory = self.recipe.memory * 2**30
        images: dict[str, Any] = {"labels": data.calibration_labels, "seed": seed, "memory": memory}
        with self._bar(f"scoring by {base}") as update:
            scores = score(
                graph,
                base,
                data.calibration,
                combine=spec.combine if base == spec.criterion else None,
                progress=update,
                **images,
            )
        left_out = unscorable(graph, spec.criterion)
        values = {name: value for name, value in scores.values.items() if name not in left_out}
        scores = dataclasses.replace(scores, values=values, unscored={**scores.unscored, **left_out})
        if spec.allocation == "sensitivity" or (spec.allocation == "knapsack" and data.calibration is not None):
            assert data.calibration is not None
            with self._bar("scanning the sensitivity of each group") as update:
                options: dict[str, Any] = {"seed": seed, "memory": memory, "progress": update}
                found = sensitivity(graph, scores, scan_images(data.calibration), **options)
            scores = dataclasses.replace(scores, sensitivity=found, notes=scores.notes + found.notes)
        if base == spec.criterion:
            return scores
        widths = self._measured(graph, scores, data).widths
        with self._bar(f"scoring by {spec.criterion}, layer by layer") as update:
            return score(
                graph,
                spec.criterion,
                data.calibration,
                combine=spec.combine,
                widths=widths,
                progress=update,
                **images,
            )

    def _recover(
        self, model: nn.Module, slim: nn.Module, plan: Plan, data: Data, dense: torch.Tensor
    ) -> tuple[nn.Module, list[dict[str, Any]]]:
        """The mended network, and for each step what it changed and how good the network was then."""
        final, record = self.work / "recovered.safetensors", self.work / "recovered.json"
        if record.is_file() and final.is_file():
            replace_tensors(slim, load_file(final))
            return slim, json.loads(record.read_text(encoding="utf-8"))
        steps = []
        for step in self.recipe.recover:
            start = time.perf_counter()
            with self._bar(f"recovery: {step.method}") as update:
                images = data.example if data.calibration is None else data.calibration
                options: dict[str, Any] = {"seed": self.recipe.seed, "memory": self.recipe.memory * 2**30}
                done = recover(model, slim, plan, images, [step], **options, progress=update)
            slim = done.model
            seconds = time.perf_counter() - start
            measured = measured_quality(self.recipe, data, dense, {"recovered": self._predict(slim, data)})
            entry = {**step.model_dump(mode="json"), "layers": done.layers[0], "notes": done.notes, "seconds": seconds}
            steps.append({**entry, "quality": measured["recovered"], "kl": measured.get("kl", {}).get("recovered")})
            self.reporter.stage(
                f"recovery by {step.method}: {done.layers[0]} layers, {measured['metric']} {measured['recovered']:.4f}",
                **entry,
            )
            self._say_notes(done.notes)
        if steps:
            held = {key: tensor.detach().contiguous() for key, tensor in tensors(slim).items()}
            files.write(final, lambda path: save_file(held, path))
            files.write_text(record, json.dumps(steps))
        return slim, steps

    @contextmanager
    def _planning(self, share: float = 1.0) -> Iterator[Deadline]:
        """What is left of a share of the time for planning; a quarter of the whole at least."""
        seconds = self.recipe.prune.planning_seconds
        deadline = Deadline(max(share * seconds - self.spent, (1 - LEARNING) * seconds))
        try:
            yield deadline
        finally:
            self.spent += deadline.spent

    @contextmanager
    def _bar(self, what: str) -> Iterator[Callable[[float], None]]:
        with self.reporter.bar(what) as update:
            yield update

    def _say_notes(self, notes: Sequence[str]) -> None:
        for note in notes:
            self.reporter.console.print(f"  note: {note}", highlight=False)

    def _step(self, name: str, make: Callable[[Path], object]) -> None:
        """Makes a file of the work folder unless an interrupted run has made it."""
        if not (self.work / name).is_file():
            make(self.work / name)

    def _predict(self, slim: nn.Module, data: Data) -> torch.Tensor:
        try:
            return predict(slim, data.test)
        except (RuntimeError, ValueError, IndexError) as error:  # shapes that do not fit
            shutil.rmtree(self.work)
            detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise GateError(f"the slim network does not run, so no slim artefact was kept: {detail}") from error

    def _quantise(self, data: Data, dense: torch.Tensor) -> dict[str, dict[str, Any]]:
        """Writes dense and slim in int8; how good and how large each is."""
        assert data.calibration is not None
        self.reporter.stage("quantising dense and slim to int8 by onnxruntime, on calibration images")
        images = data.calibration[:INT8_IMAGES]
        result = {}
        for kind in ("dense", "slim"):
            source, target = self.work / f"{kind}.onnx", self.work / f"{kind}-int8.onnx"
            (name,) = made_up_inputs(source)
            quantize(source, target, [{name: batch.numpy()} for batch in images.split(INT8_BATCH)])
            logits = predict_onnx(target, data.test)
            measured = measured_quality(self.recipe, data, dense, {"int8": logits})
            entry = {"quality": measured["int8"], "kl": measured.get("kl", {}).get("int8")}
            result[f"{kind}-int8"] = {**entry, "bytes": target.stat().st_size}
        return result

    def _opened(self, runtime: Runtime, nets: dict[str, nn.Module], data: Data) -> dict[str, Any]:
        """What `runtime` opens of dense and slim: the run's ONNX files, or the modules."""
        if not runtime.files:
            return {kind: runtime.prepare(net, data.example, self.work) for kind, net in nets.items()}
        suffix = "-int8" if runtime.dtype == "int8" else ""
        return {kind: self.work / f"{kind}{suffix}.onnx" for kind in nets}

    # --- files --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(
                f"the output folder {self.folder} can't be made ({error}): give another by --out"
            ) from error
        self.reporter.log = self.folder / "log.jsonl"
        recipe = yaml.safe_dump(self.recipe.model_dump(mode="json"), sort_keys=False)
        files.write_text(self.folder / "recipe.yaml", recipe)
        files.write_text(self.folder / "environment.json", json.dumps(environment(), indent=2) + "\n")

    def _close(self, report: dict[str, Any], passed: bool) -> None:
        """Moves what may stay into place, the report last: a folder with a report.json is complete."""
        int8 = ("dense-int8.onnx", "slim-int8.onnx") if self.recipe.int8 else ()
        for name in (*_ARTEFACTS, *int8) if passed else ("dense.onnx",):
            os.replace(self.work / name, self.folder / name)
        files.write_text(self.folder / "report.html", render_html(report, self.name))
        files.write_text(self.folder / "report.json", json.dumps(report, indent=2) + "\n")
        shutil.rmtree(self.work)
        self.reporter.event("finished", passed=passed)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
