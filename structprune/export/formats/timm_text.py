"""timm's own text of a pruned network's widths: what its `_pruned/*.txt` hold, and `adapt_model_from_string` reads.

timm rebuilds convolutions, BatchNorms and linear layers at the widths of the text, and nothing else: not heads, nor
LayerNorms, nor grouped convolutions that are not depthwise.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, fx, nn

from ...errors import ModelError
from ...models import TimmSpec
from ...modules import evaluating, skeleton_copy
from ...ops import Inputs, outputs
from ..format import FORMATS, Finished, Format, Run

FILE = "slim.timm.txt"
_NEAR = (
    1e-3  # of the largest output: a network of other heads or scales is further away; the gate's comparison is finer
)


def write(finished: Finished, folder: Path) -> None:
    """The text. Raises ModelError where timm can't make the slim network of it."""
    if not isinstance(finished.model, TimmSpec):
        raise ModelError("timm's text is for networks that timm makes by name")
    if isinstance(finished.slim, fx.GraphModule):
        raise ModelError("the slim network is a graph, and timm's text has widths for timm's own modules only")
    shapes = {key: list(tensor.shape) for key, tensor in finished.slim.state_dict().items() if tensor.dim()}
    (folder / FILE).write_text("***".join(f"{key}:{shape}" for key, shape in shapes.items()) + "\n", encoding="utf-8")
    network = _rebuilt(finished, folder)
    with evaluating(skeleton_copy(finished.slim)) as slim, torch.no_grad():
        pairs = zip(outputs(finished.inputs.call(slim)), outputs(finished.inputs.call(network)), strict=True)
        if not all(a.shape == b.shape and (a - b).abs().max() <= _NEAR * a.abs().max() for a, b in pairs):
            raise ModelError("timm makes another network of these widths: something else than widths was changed")


def _rebuilt(finished: Finished, folder: Path) -> nn.Module:
    """timm's network at the widths of the text, with the slim one's weights: what a user does with both files."""
    from timm import create_model
    from timm.models._prune import adapt_model_from_string

    assert isinstance(finished.model, TimmSpec)
    dense = create_model(finished.model.name, pretrained=False, **finished.model.kwargs)
    text, weights = (folder / FILE).read_text(encoding="utf-8").strip(), load_file(finished.weights)
    try:
        network = adapt_model_from_string(dense, text)
    except Exception as error:  # whatever timm's reader meets in a network that it was not written for
        raise ModelError(
            f"timm can't rebuild {finished.model.name} from its widths ({type(error).__name__})"
        ) from error
    for key, tensor in network.state_dict().items():
        if key in weights and tensor.shape != weights[key].shape:
            raise ModelError(
                f"timm's text can't say all widths: {key} is {tuple(weights[key].shape)}, and timm makes "
                f"{tuple(tensor.shape)}"
            )
    if odd := sorted(network.state_dict().keys() ^ weights.keys()):
        raise ModelError(f"timm's network and the slim one differ in {odd[0]}")
    network.load_state_dict(weights)
    return network.eval()


def open_network(finished: Finished, folder: Path) -> Run:
    network = _rebuilt(finished, folder)

    def run(inputs: Inputs) -> list[Tensor]:
        with torch.no_grad():
            return outputs(inputs.call(network))

    return run


FORMATS.add(Format("timm", "timm's text of widths", {FILE: "the slim network's widths for timm"}, write, open_network))
