"""report.json of what the stages of a run measured. `records` says what its fields mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import quality_judge
from ..export import opset_of
from ..graph import DependencyGraph
from ..plan_schema import Amounts
from ..recipe import Recipe, RuntimeSpec
from ..records import Plan
from ..runtimes import Benchmark, environment
from ..runtimes.other_runtimes import OtherRuntime
from ..schedules.finetuning import in_full
from ..verify import Gate
from .exported_files import ExportedFormat
from .fvcore_counts import CountedMacs
from .gate import gate_record
from .quality import quality_record
from .records import (
    SCHEMA,
    Barrier,
    Budget,
    Constraints,
    Counts,
    Data,
    Int8,
    Latency,
    Layer,
    Macs,
    MacsByOperator,
    Model,
    Onnx,
    Pair,
    PlannedLatency,
    Quality,
    Quantised,
    RecoveryStep,
    Report,
    Search,
)
from .summaries import describe_groups
from .training_records import Epoch, Epochs, Finetuning, PruningRound
from .verdict import verdict_of


@dataclass(frozen=True)
class Measurements:
    """What the stages of a run measured of its networks.

    Attributes:
        quality: by stage, `dense` and `final` among them.
        gates: `final`, and `pruned` (the network as cut) where it was recovered or fine-tuned since.
        macs: the independent count.
        onnx: the files of `dense` and `slim`.
        data: what is to be said of the data.
        recovery: what each method of recovery did.
        latency: dense and slim timed side by side; None where the gate failed.
        layers: milliseconds by layer, of `dense` and `slim`.
        int8: of `dense-int8` and `slim-int8`, if they were made.
        also: the same networks on other runtimes.
        search: how the budget of cost was found, where a bound of quality was asked for.
        rounds: of the rounds before the last, "1.pruned", "1.final" and so on.
        epochs: of the training of `dense` and `slim`, where they were trained.
        formats: what the slim network was also written as.
    """

    quality: Mapping[str, quality_judge.Quality]
    gates: Mapping[str, Gate]
    macs: CountedMacs
    onnx: Mapping[str, Path]
    data: Data
    recovery: Sequence[RecoveryStep] = ()
    latency: Benchmark | None = None
    layers: Mapping[str, Mapping[str, float]] | None = None
    int8: Mapping[str, Quantised] = field(default_factory=dict)
    also: Sequence[OtherRuntime] = ()
    search: Search | None = None
    rounds: Mapping[str, Any] = field(default_factory=dict)
    epochs: Mapping[str, Sequence[Epoch]] = field(default_factory=dict)
    formats: Sequence[ExportedFormat] = ()


def build_report(recipe: Recipe, graph: DependencyGraph, plan: Plan, measured: Measurements) -> Report:
    """The record of a run.

    Args:
        recipe: What was asked for.
        graph: The dense network's.
        plan: What was cut.
        measured: What came of it.

    Returns:
        The report with its verdict.
    """
    sizes = {name: path.stat().st_size for name, path in measured.onnx.items()}
    quality = quality_record(measured.quality, not recipe.model.trained)
    timed = measured.latency
    report = Report(
        schema=SCHEMA,
        model=Model.model_validate({"name": recipe.model.name, **recipe.model.model_dump(mode="json")}),
        criterion=plan.criterion,
        allocation=plan.allocation,
        budget=_budget(recipe, plan, measured),
        search=measured.search,
        constraints=Constraints.model_validate(plan.constraints),
        form=graph.form,
        notes=plan.notes,
        macs=_macs(plan, measured.macs),
        params=_counts(plan.params),
        onnx=Onnx(opset=opset_of(measured.onnx["slim"]), dense_bytes=sizes["dense"], slim_bytes=sizes["slim"]),
        formats=list(measured.formats),
        latency=None if timed is None else _latency(timed, plan, recipe.runtime),
        int8=[] if timed is None else _int8(measured.int8, timed, quality, sizes),
        also=list(measured.also),
        planned_latency=None if plan.latency is None else PlannedLatency.model_validate(plan.latency),
        layers=_layers(measured.layers),
        quality=quality,
        recovery=list(measured.recovery),
        rounds=_rounds(plan, measured) if recipe.prune.schedule else [],
        epochs=_epochs(plan, measured),
        finetuning=_finetuning(recipe, plan),
        gate=gate_record(measured.gates["final"], measured.gates.get("pruned"), _all_passed(measured)),
        barriers=[Barrier(**asdict(barrier)) for barrier in graph.barriers],
        groups=describe_groups(graph, plan),
        environment=environment(),
        data=measured.data,
    )
    return report.model_copy(update={"verdict": verdict_of(report)})


def _budget(recipe: Recipe, plan: Plan, measured: Measurements) -> Budget:
    """What was asked for; the plan of several rounds has amounts in place of shares."""
    if measured.search:
        return measured.search.asked
    return Budget.model_validate(recipe.prune.budget.as_dict() if recipe.prune.schedule else plan.budget)


def _rounds(plan: Plan, measured: Measurements) -> list[PruningRound]:
    """Each round of a cut in several, by what was measured of it and what the plan says of each cut."""
    cuts = plan.constraints.get("cuts", [])
    values = dict(measured.rounds)
    values |= {f"{len(cuts)}.{stage}": quality for stage, quality in measured.quality.items()}
    rounds = []
    for number, cut in enumerate(cuts, 1):
        quality = {stage: values.get(f"{number}.{stage}") for stage in ("pruned", "recovered", "final")}
        known = {stage: entry.value for stage, entry in quality.items() if entry is not None}
        amounts = {"macs": cut["macs"]["slim"], "params": cut["params"]["slim"]}
        rounds.append(PruningRound.model_validate({**amounts, **known}))
    return rounds


def _epochs(plan: Plan, measured: Measurements) -> Epochs:
    """How the trainings went: of the dense network, and of the slim one in each round."""
    earlier = range(1, len(plan.constraints.get("cuts", [])))
    rounds = [list(measured.rounds.get(f"{number}.epochs.slim", [])) for number in earlier]
    own = {name: list(epochs) for name, epochs in measured.epochs.items()}
    return Epochs(**own, rounds=rounds if any(rounds) else [])


def _finetuning(recipe: Recipe, plan: Plan) -> Finetuning | None:
    if recipe.finetune is None:
        return None
    spec = in_full(recipe.finetune, plan.macs)
    rewind = {} if spec.rewind_to is None else {"rewind_to": spec.rewind_to}
    return Finetuning.model_validate({"start": spec.start, "epochs": spec.epochs, **rewind})


def _all_passed(measured: Measurements) -> bool:
    return measured.macs.passed and all(gate.passed for gate in measured.gates.values())


def _counts(counts: Amounts) -> Counts:
    return Counts(dense=counts["dense"], slim=counts["slim"], cut=counts["dense"] / counts["slim"])


def _macs(plan: Plan, counted: CountedMacs) -> Macs:
    planned = MacsByOperator(dense=plan.macs_by_operator["dense"], slim=plan.macs_by_operator["slim"])
    fvcore = MacsByOperator(dense=counted.dense, slim=counted.slim)
    return Macs(**dict(_counts(plan.macs)), by_operator=planned, fvcore=fvcore)


def _layers(layers: Mapping[str, Mapping[str, float]] | None) -> list[Layer]:
    """Where the time goes, in the order of the dense network; what only the slim one has comes last."""
    if layers is None:
        return []
    dense, slim = layers["dense"], layers["slim"]
    names = dict.fromkeys([*dense, *slim])
    return [Layer(layer=name, dense_ms=dense.get(name, 0.0), slim_ms=slim.get(name, 0.0)) for name in names]


def _int8(
    quantised: Mapping[str, Quantised], timed: Benchmark, quality: Quality, sizes: Mapping[str, int]
) -> list[Int8]:
    """Dense and slim, in float32 and int8, side by side; empty if there is no int8."""
    if not quantised:
        return []
    kl = quality.kl or {}
    rows = {
        "dense": Quantised(quality=quality.dense, kl=kl.get("dense"), bytes=sizes["dense"]),
        "slim": Quantised(quality=quality.final, kl=kl.get("final"), bytes=sizes["slim"]),
        **quantised,
    }
    return [_int8_row(name, row, timed) for name, row in rows.items()]


def _int8_row(name: str, row: Quantised, timed: Benchmark) -> Int8:
    is_timed = name in timed.ms  # not int8 where the runtime's engine is torch's
    pruned = timed.ratio(name.replace("slim", "dense"), name) if is_timed and name.startswith("slim") else (None, None)
    return Int8(
        network=name,
        **dict(row),
        ms=timed.ms[name] if is_timed else None,
        speedup=timed.speedup.get(name, 1.0) if is_timed else None,
        ci95=timed.ci95.get(name, (1.0, 1.0)) if is_timed else None,
        pruned_speedup=pruned[0],
        pruned_ci95=pruned[1],
    )


def _latency(timed: Benchmark, plan: Plan, runtime: RuntimeSpec) -> Latency:
    """Of the networks that the plan was made for: dense and slim in float32, or both in int8."""
    suffix = "-int8" if runtime.dtype == "int8" else ""
    dense, slim = timed.ms["dense" + suffix], timed.ms["slim" + suffix]
    joules = timed.joules
    speedup, interval = timed.ratio("dense" + suffix, "slim" + suffix)
    return Latency(
        runtime=timed.runtime,
        engine=runtime.engine,
        device=runtime.device,
        dtype=runtime.dtype,
        threads=timed.threads,
        batch=timed.batch,
        rounds=timed.rounds,
        turns=timed.turns,
        dense_ms=dense,
        slim_ms=slim,
        slim_ms_ci95=timed.ms_ci95.get("slim" + suffix),
        speedup=speedup,
        ci95=interval,
        notes=timed.notes,
        cores=timed.cores,
        joules=Pair(dense=joules["dense" + suffix], slim=joules["slim" + suffix]) if joules else None,
        efficiency=speedup * plan.macs["slim"] / plan.macs["dense"],
        gmacs_per_second=Pair(
            dense=plan.macs["dense"] * timed.batch / dense / 1e6,
            slim=plan.macs["slim"] * timed.batch / slim / 1e6,
        ),
    )
