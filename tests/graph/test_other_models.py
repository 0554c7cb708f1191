"""Models from outside timm: trace, plan to a budget, prune, pass the gate, keep class and keys, and train."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import structprune as sp
from structprune.errors import ModelError
from structprune.ops import Inputs, capture, outputs
from tests.example_networks import pruned
from tests.graph.other_models import (
    Attended,
    Checkpointed,
    DenselyConnected,
    Encoder,
    Frozen,
    Language,
    Pyramid,
    Recurrent,
    Several,
    Translator,
    UNet,
    gated,
    line,
    super_resolution,
    volume,
)

torch.manual_seed(0)
IMAGE = torch.randn(2, 3, 16, 16)
PADDING = torch.tensor([[False] * 7, [False] * 5 + [True] * 2])


def check(model, inputs, share=0.5, untrained=()):
    """Returns the graph and the slim network of a model that was pruned to `share` of its MACs.

    Of the parameters that were cut, all but those in modules of `untrained` must get a gradient.
    """
    model.eval()
    graph = sp.trace(model, inputs)
    plan, slim = pruned(model, inputs, share)
    assert 0.8 * share <= plan.macs["slim"] / plan.macs["dense"] <= share
    assert type(slim) is type(model)
    assert list(slim.state_dict()) == list(model.state_dict())
    gate = sp.verify(model, slim, plan, inputs)
    assert gate.passed, gate.reasons()
    assert gate.float64.batches
    assert gate.random_weights.batches
    _train(slim, inputs, [key for key in plan.keep if not key.startswith(tuple(untrained))])
    return graph, slim


def _train(slim, inputs, keys):
    """One step of SGD changes each of these parameters."""
    slim = copy.deepcopy(slim).train()
    parameters = {key: p for key, p in slim.named_parameters() if key in keys}
    assert parameters
    loss = sum(out.square().mean() for out in outputs(Inputs.of(inputs).call(slim)) if out.requires_grad)
    loss.backward()
    before = {key: p.detach().clone() for key, p in parameters.items()}
    torch.optim.SGD(parameters.values(), lr=1.0).step()
    assert [key for key, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()] == []
    assert [key for key, p in parameters.items() if torch.equal(p, before[key])] == []


MODELS = {  # each with the groups that must be found: {leading layer: units}
    "unet": (
        UNet, IMAGE, {"down1.0": 8, "down2.0": 16, "middle.0": 32, "up2": 16, "merge2.0": 16, "up1": 8, "merge1.0": 8},
    ),
    "pyramid": (Pyramid, IMAGE, {"stages.0": 8, "stages.1": 12, "stages.2": 16, "lateral.0": 10, "smooth.2": 10}),
    "1-d": (line, torch.randn(2, 1, 50), {"0": 8, "3": 16, "5": 12}),
    "3-d": (volume, torch.randn(2, 1, 12, 12, 12), {"0": 8, "4": 16}),
    "super resolution": (super_resolution, torch.randn(2, 1, 8, 8), {"0": 12, "2": 8}),
    "gated linear units": (gated, torch.randn(2, 3, 9), {"0": 8, "2": 12}),
    "dense connections": (DenselyConnected, IMAGE, {"stem": 8, "layers.0.2": 4, "layers.1.2": 4, "layers.2.2": 4}),
    "several inputs": (
        Several, (IMAGE, torch.randn(2, 5)), {"image.0": 12, "a": 10},
    ),
    "keyword inputs": (
        Several, {"vector": torch.randn(2, 5), "image": IMAGE, "weight": torch.rand(2, 1, 16, 16)},
        {"image.0": 12, "a": 10},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_whose_every_width_may_go(name):
    make, inputs, groups = MODELS[name]
    graph, _ = check(make(), inputs)
    assert {group.name: group.units for group in graph.groups} == groups
    assert not graph.barriers


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_head(kind):
    graph, slim = check(Recurrent(kind), torch.randn(2, 1, 8, 10), 0.7)
    assert {group.name: group.units for group in graph.groups} == {"conv1": 16, "conv2": 6, "rnn": 24}
    assert not graph.barriers
    gates, width = 4 if kind is nn.LSTM else 3, slim.rnn.hidden_size
    assert width < 12
    assert slim.rnn.weight_ih_l0.shape == (gates * width, 8 * slim.conv2.out_channels)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_modes(mode):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode=mode),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2, padding_mode=mode),
        nn.Conv2d(8, 2, 1),
    )
    graph, _ = check(model, IMAGE)
    assert {group.name: group.units for group in graph.groups} == {"0": 8, "2": 8}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointed_activations(reentrant):
    graph, _ = check(Checkpointed(reentrant), IMAGE)
    assert {group.name: group.units for group in graph.groups} == {"enter": 8, "inner.0.0": 8, "inner.1.0": 8}


def test_a_part_without_gradients():
    graph, slim = check(Frozen(), IMAGE, untrained=["backbone"])
    assert {group.name: group.units for group in graph.groups} == {"backbone.0.0": 8, "backbone.1.0": 8, "mix": 8}
    slim(IMAGE).mean().backward()
    assert slim.backbone[0][0].weight.grad is None


@pytest.mark.parametrize(("wrap", "key"), [("weight_norm", "original0"), ("spectral_norm", "original")])
def test_parametrised_weights(wrap, key):
    wrap = getattr(parametrizations, wrap)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), wrap(nn.Conv2d(8, 12, 3)), nn.ReLU(), nn.Conv2d(12, 4, 1))
    graph, slim = check(model, IMAGE)
    assert {group.name: group.units for group in graph.groups} == {"0": 8, f"2.parametrizations.weight.{key}": 12}
    assert slim[2].weight.shape[0] == slim[4].in_channels < 12


# --- PyTorch's own transformers: their code takes widths from numbers that do not follow, so only hidden ones go ----


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested tensors")
def test_encoder_layers(norm_first, padded):
    x = torch.randn(2, 7, 16)
    graph, slim = check(Encoder(norm_first), (x, PADDING) if padded else x, 0.8)
    assert {group.name: group.units for group in graph.groups} == {f"layers.layers.{i}.linear1": 32 for i in (0, 1)}
    reason = (
        "must lose as many channels as a part beside it, from which nothing can go"  # heads and the input's channels
    )
    kept = {barrier.node for barrier in graph.barriers if barrier.reason == reason}
    assert kept == {f"layers.layers.{i}.self_attn.in_proj_weight" for i in (0, 1)}
    assert slim.layers.layers[0].self_attn.embed_dim == 16


def test_transformer_with_masks():
    source, target = torch.randint(0, 20, (2, 7)), torch.randint(0, 20, (2, 5))
    graph, slim = check(Translator(), (source, target, PADDING), 0.8)
    layers = ("transformer.encoder.layers.0", "transformer.decoder.layers.0")
    hidden = {f"{layer}.linear1": 32 for layer in layers}
    # four channels of both embeddings with a head of each of three attentions
    assert {g.name: g.units for g in graph.groups} == {f"{layers[0]}.self_attn.in_proj_weight": 16 + 3 * 4, **hidden}
    assert not graph.barriers
    assert slim.transformer.d_model == slim.source.embedding_dim


def test_multihead_attention_between_other_layers():
    graph, slim = check(Attended(), torch.randn(2, 3, 6, 6), 0.8)
    assert {group.name: group.units for group in graph.groups} == {"conv": 12, "embed": 16 + 4, "hidden": 24}
    assert not graph.barriers
    assert (slim.attention.embed_dim, slim.attention.num_heads) == (12, 3)


def test_an_embedding_whose_weights_are_the_output_s():
    graph, slim = check(Language(), torch.randint(0, 30, (2, 6)))
    assert {group.name: group.units for group in graph.groups} == {"wide": 32, "narrow": 16}
    assert slim.out.weight is slim.token.weight
    assert slim.token.embedding_dim == slim.token.weight.shape[1] == slim.norm.normalized_shape[0] < 16
    (barrier,) = graph.barriers
    assert (barrier.op, barrier.channels) == ("embedding", 30)


@pytest.mark.parametrize("options", [{"batch_first": True}, {"bidirectional": True, "num_layers": 2}, {"proj_size": 3}])
def test_an_lstm_is_recorded_with_the_shapes_that_it_makes(options):
    model = nn.LSTM(6, 5, **options).eval()
    x = torch.randn(3, 4, 6)
    node = next(node for node in capture(model, Inputs.of(x)).calls if "lstm" in str(node.target))
    out, (hidden, cell) = model(x)
    assert [part.shape for part in node.meta["val"]] == [out.shape, hidden.shape, cell.shape]
    with pytest.raises(ModelError, match="could not run"):
        capture(model, Inputs.of(torch.randn(3, 4, 7)))
