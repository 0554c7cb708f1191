"""Saved folders as someone who means harm would write them: edited, and signed anew so that the files agree."""

import json

from safetensors.torch import load_file

from structprune import Plan
from structprune.errors import PlanError
from structprune.store import weights


def forge(folder, change, tensors=None):
    """Applies `change` to the data of plan.json, and to the weights if a function is given for them."""
    data = json.loads((folder / "plan.json").read_text())
    change(data)
    held = load_file(folder / weights.WEIGHTS)
    if tensors is not None:
        tensors(held)
    try:
        plan = Plan.from_json(json.dumps(data))
        data["weights"] = weights.write(folder / weights.WEIGHTS, held, plan).model_dump()
    except PlanError:
        pass  # no plan at all, which reading finds as well
    (folder / "plan.json").write_text(json.dumps(data))
