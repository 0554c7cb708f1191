"""Whatever the network, the slim one equals the masked dense one; hypothesis chooses networks and plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import nn

import structprune as sp
from structprune.modules import plain_transformers
from tests.random_blocks import BLOCKS, NO_ONNX
from tests.random_checks import Wrong, check
from tests.random_networks import Case, RandomNet, cases

# No phase that explains: it takes minutes, and `python tools/fuzz.py --spec` shows a failure at leisure.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
RUN = settings(deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)


@settings(RUN, max_examples=150, derandomize=True)
@given(cases())
def test_slim_equals_masked(case):
    check(case)


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
