"""Which layers lost inputs, and which get something else than in the dense network."""

from __future__ import annotations

from collections import Counter

from ..calibration import WritableNetwork
from ..graph.layers import Layer
from ..graph.recorded_calls import behind
from ..graph.recurrent_layers import find_recurrent_layers
from ..records import Plan
from .slim_outputs import keeps


def unreached(slim: WritableNetwork, plan: Plan) -> list[str]:
    """A note on weights that lost inputs and are no layer's own: computed ones, for example."""
    known = {layer.weight for layer in slim.layers}
    known |= {key for layer in find_recurrent_layers(slim.recording) for key in layer.keys}
    lost = [k for k in plan.keep if "1" in plan.keep[k] and k not in known and slim.state[k].dim() > 1]
    return [f"no layer holds {', '.join(lost[:3])} itself, so what reads it is not mended"] if lost else []


def loses_inputs(layer: Layer, plan: Plan) -> bool:
    return keeps(plan, layer.weight, 0 if layer.transposed else 1) is not None


def layers_to_fit(slim: WritableNetwork, plan: Plan, *, behind_cut: bool) -> list[Layer]:
    """The layers that are fitted; notes say which of those that lost inputs are not."""
    changed = behind(slim.recording, plan.keep.keys()) if behind_cut else set()
    calls = Counter(layer.weight for layer in slim.layers)
    chosen = []
    for layer in slim.layers:
        lost = loses_inputs(layer, plan)
        if layer.transposed and lost:
            slim.notes.append(f"{layer.module}: transposed convolutions are not refitted")
        elif calls[layer.weight] > 1 and lost:
            slim.notes.append(f"{layer.module}: several calls share {layer.weight}, so it is not refitted")
        elif (lost or layer.input in changed) and not layer.transposed and calls[layer.weight] == 1:
            chosen.append(layer)
    return chosen
