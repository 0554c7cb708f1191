"""Whatever the network, the slim one equals the masked dense one; hypothesis chooses networks and plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from torch import nn

import structprune as sp
from structprune.modules import plain_transformers
from structprune.suites.equality import Wrong
from structprune.suites.fuzz.checks import check
from structprune.suites.random_networks import BLOCKS, HEADS, NO_ONNX, WIDTHS, Case, RandomNet

# No phase that explains: it takes minutes, and `python tools/fuzz.py --spec` shows a failure at leisure.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
RUN = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)


def cases() -> st.SearchStrategy[Case]:
    width = st.one_of(st.sampled_from(WIDTHS), st.integers(4, 12))
    blocks = st.lists(st.tuples(st.sampled_from(sorted(BLOCKS)), width), min_size=1, max_size=5).map(tuple)
    return st.builds(Case, blocks, st.sampled_from(HEADS), st.integers(0, 1000), st.floats(0.2, 0.9))


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.thorough) for part in range(1, 5))])
def test_slim_equals_masked(part):
    """100 networks, the same each time, in parts that workers can share; tools/fuzz.py takes any number."""

    @seeded(part)
    @settings(RUN, max_examples=20, database=None)
    @given(cases())
    def check_each(case):
        check(case)

    check_each()


@pytest.mark.slow
@settings(RUN, max_examples=1000)
@given(cases())
def test_slim_equals_masked_many(case):
    check(case)


@pytest.mark.parametrize("width", [4, 7, 12])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_sound(name, width):
    """Shapes are kept, samples of a batch do not mix, and the input reaches the output at every width."""
    block = nn.Sequential(BLOCKS["Plain"](3, 6), BLOCKS[name](6, width), BLOCKS[name](width, 5)).eval()
    x = torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        made = block(x)
        torch.testing.assert_close(block(x[1:2]), made[1:2])
        assert made.shape == (3, 5, 12, 12)
        assert made.isfinite().all()
        assert not torch.equal(made[:1], made[1:2])


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_plan_is_noticed(monkeypatch, seed):
    """The check itself: a plan whose kernels are off by one, so that all sizes fit."""

    def off_by_one(*args: object, **kwargs: object) -> sp.Plan:
        right = plan(*args, **kwargs)
        shifted = sorted((index + 1) % 6 for index in right.keep["fc1.weight"]["1"])
        return replace(right, keep={**right.keep, "fc1.weight": {"1": shifted}})

    plan, case = sp.plan, Case((("Plain", 4), ("Plain", 6)), "pool", seed, 0.4)
    check(case)
    monkeypatch.setattr(sp, "plan", off_by_one)
    with pytest.raises(Wrong, match="own weights: relative difference"):
        check(case)


def test_a_case_is_read_back_from_its_text():
    for seed in range(20):
        case = Case.random(seed)
        assert Case.parse(case.spec, case.seed, case.ratio) == case
    for text, message in [
        ("[] pool", "at least one block"),
        ('[["Plain", 8]] top', "no head"),
        ("[[1, 8]] pool", "no b"),
    ]:
        with pytest.raises(ValueError, match=message):
            Case.parse(text, 0, 0.5)


# As they were before they moved into the package, so that what was counted of so many seeds can be counted again: spec,
# ratio, form, tensors and numbers in the state, and what these, the input and the outputs add up to.
SEEDS = {
    0: (
        '[["SelectiveKernel", 4], ["Plain", 11], ["GroupNormed", 12], ["InstanceNormed", 10], ["Attention", 6]] number',
        *(0.202, "module", 42, 5119, 399.6598424014883, -19.53883068682626),
        [-0.10382794588804245, 0.0831875205039978, -0.10137395560741425, -0.2785260081291199],
    ),
    7: (
        '[["Scaled", 4], ["SharedBranches", 6], ["TokenMixing", 8], ["RootMeanSquared", 11], ["SpaceToDepth", 12]] '
        "flatten",
        *(0.395, "graph", 34, 4491, 360.58784224245574, 19.186785319820046),
        [-0.08374938368797302, 0.2525860369205475, 0.222873717546463, -0.05837675929069519],
    ),
    1999: (
        '[["RootMeanSquared", 6], ["RootMeanSquaredByTorch", 10], ["OwnDepthwise", 10]] view',
        *(0.768, "graph", 17, 2404, 191.78059893312457, -7.333598125260323),
        [0.20917156338691711, 0.2584705948829651, 0.17421413958072662, -0.25422078371047974],
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_stays_the_same_network(seed):
    case = Case.random(seed)
    model, x = case.build()
    state = [tensor.double() for tensor in model.state_dict().values()]
    with torch.no_grad():
        outputs = model(x).flatten()
    spec, ratio, form, tensors, numbers, size, total, expected = SEEDS[seed]
    assert (case.spec, case.ratio, case.form) == (spec, ratio, form)
    assert (len(state), sum(tensor.numel() for tensor in state)) == (tensors, numbers)
    assert sum(float(tensor.abs().sum()) for tensor in state) == pytest.approx(size, rel=1e-6)
    assert float(x.double().sum()) == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(outputs, torch.tensor(expected), rtol=1e-3, atol=1e-5)


def test_the_networks_are_a_users_own_code(tmp_path):
    """Not the package's, of which the store admits no class."""
    model, x = Case((("Plain", 8),), "pool", 0, 0.5).build()
    assert type(model).__module__ == "suite_networks.random_network"
    graph = sp.trace(model, x)
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.5}, align=1)
    slim = sp.prune(model, plan)
    with torch.no_grad():
        assert torch.equal(sp.load(sp.save(slim, plan, tmp_path))(x), slim(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BLOCKS) - NO_ONNX))
def test_blocks_export(name, tmp_path: Path):
    for width in (4, 7):
        model = RandomNet([("Plain", 6), (name, width)], "flatten").eval()
        x = torch.randn(1, 3, 12, 12)
        session = onnxruntime.InferenceSession(str(sp.export_onnx(model, x, tmp_path / "block.onnx")))
        with plain_transformers(), torch.no_grad():
            expected = model(x)
        (made,) = session.run(None, {"x": x.numpy()})
        assert torch.allclose(torch.from_numpy(made), expected, rtol=1e-3, atol=1e-4), width
