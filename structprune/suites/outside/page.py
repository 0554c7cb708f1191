"""docs/outside.md, written from the records of the suite."""

from __future__ import annotations

from collections.abc import Sequence

from ..markdown import escape
from ..pool import Record
from ..results import origin
from ..zoo.page import shares
from .records import counts, right, trouble

TITLE = "Prunes and proves networks that timm does not make, each in a process of its own."
ABOUT = (
    "Each network (structprune/suites/outside: torchvision, transformers, diffusers, segmentation-models-pytorch, "
    "monai and a few written after well-known shapes, at small random configurations) is traced on a random example, "
    "planned at half of the MACs (or the smallest budget that can be met), pruned and gated (ONNX parity included); "
    "then saved and loaded in a fresh process without the dense network, run at three times the batch, and trained "
    "for a step. Where all that was cut is exact, the slim network is also held against the dense one with every "
    "removed slice set to zero, by code that shares nothing with the gate. Needs the extra `outside`: pip install -c "
    "constraints.txt -e '.[outside]'."
)
STEPS = (("reloaded", "load"), ("zeroed", "zeroed dense"), ("other_batch", "batch × 3"), ("training_step", "training"))
COLUMNS = ("network", "package", "groups", "prunable, module / graph", "MACs cut", "form", "gate", "ONNX",
           *(title for _, title in STEPS))  # fmt: skip


def row(record: Record) -> tuple[str, ...]:
    known = record.get("traced")

    def step(name: str) -> str:
        state = record.get(name, "-")
        return state if state in ("right", "-") else "not compared" if state.startswith("not compared") else "FAILED"

    return (
        record["model"],
        record.get("package", "-"),
        str(record["groups"]) if known else "-",
        shares(record) if known else "-",
        f"{record['cut']:.2f}×" if record.get("cut") else "-",
        record.get("form", "-"),
        ("passed" if record["gate_passed"] else "FAILED") if "gate_passed" in record else record["status"],
        record.get("onnx", "-") if record.get("onnx") == "passed" else "not compared" if record.get("onnx") else "-",
        *(step(name) for name, _ in STEPS),
    )


def document(records: Sequence[Record]) -> str:
    """docs/outside.md."""
    lines = [
        "# Networks that timm does not make",
        "",
        f"{TITLE} Written by",
        "",
        "```sh",
        "python tools/outside.py --write",
        "```",
        "",
        ABOUT,
        "",
        origin(records),
        "",
        f"**{counts(records)}.**",
        "",
        "*Prunable* is what goes of the MACs with one unit left in each group, in the module form and in the graph "
        "form. *Not compared* where a step does not apply: the slim network can't be held against zeros where a cut "
        "changes a statistic (LayerNorm), and not every dense network takes another batch or trains on one sample.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(map(escape, row(record))) + " |" for record in records),
        "",
    ]
    rest = [record for record in records if not right(record)]
    if rest:
        lines += ["## The rest, each with its reason", ""]
        lines += [f"- **{record['model']}**: {escape(trouble(record))}" for record in rest]
    return "\n".join(lines).rstrip() + "\n"
