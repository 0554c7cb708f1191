"""The blocks of the random networks: `BLOCKS[name](width, out)` maps a BCHW tensor to one with `out` channels.

All keep the resolution (12 × 12), run at any batch size and, but for those in `NO_ONNX`, export to ONNX.
`statistic = True` on a class says that it computes something over its channels (a mean, a softmax): the network
without some channels is then not the one where they are zero, but the one whose statistic leaves them out.
"""

from __future__ import annotations

from torch import nn

from . import convolutions, gates, norms, programs, sequences, splits, tokens

BLOCKS: dict[str, type[nn.Module]] = {
    block.__name__: block
    for module in (convolutions, gates, norms, splits, tokens, sequences, programs)
    for block in module.BLOCKS
}

NO_ONNX = frozenset(
    ["ShuffledByTorch", "TorchAttention", "RootMeanSquaredByTorch"]
)  # ops that the older exporter does not know
