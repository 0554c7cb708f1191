"""Which layers lost inputs, and which get something else than in the dense network."""

from __future__ import annotations

from torch import nn

from ..calibration import WritableNetwork
from ..graph.layers import Layer, count_reads
from ..graph.recorded_calls import find_changed
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
    """The layers that are fitted: those that lost inputs, of which notes say why some are not, and with `behind_cut`
    all whose inputs are no longer the dense network's, but for transposed ones and for weights that are no parameters
    or that something else reads."""
    changed = find_changed(slim.recording, plan.keep.keys()) if behind_cut else set()
    reads = count_reads(slim.recording)
    chosen = []
    for layer in slim.layers:
        lost = loses_inputs(layer, plan)
        if not lost and layer.input not in changed:
            continue
        if layer.transposed:
            slim.notes += [f"{layer.module}: transposed convolutions are not refitted"] if lost else []
        elif reads[layer.weight] > 1:
            slim.notes += [f"{layer.module}: several calls share {layer.weight}, so it is not refitted"] if lost else []
        elif lost or isinstance(slim.state[layer.weight], nn.Parameter):
            chosen.append(layer)
    return chosen
