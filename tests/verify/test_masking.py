"""The masked statistic of contractions and norms, and calls that are told apart by number, op and module."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from structprune.records import Plan
from structprune.verify import masked
from structprune.verify.masking import OtherPath, Watched

KEEP = [0, 2, 3]


def entry(op, keep, reduces=True, module="", call=0, **more):
    return {"op": op, "call": call, "module": module, "reduces": reduces, "keep": keep, **more}


def left(function, op, keep, reduces=True):
    """What `function` makes with the statistics of its one call over what is left."""

    class Net(nn.Module):
        def forward(self):
            return function()

    return Watched(Net(), {(op, 0): entry(op, keep, reduces)})()


A, B = torch.rand(2, 5, 4) + 1, torch.rand(2, 5, 4) + 1
W = torch.rand(7, 4) + 1


@pytest.mark.parametrize(
    ("function", "op", "keep", "expected"),
    [
        (
            lambda: torch.einsum("bnd,bmd->bnm", A, B),
            "einsum",
            {"0": {"2": KEEP}, "1": {"2": KEEP}},
            lambda: torch.einsum("bnd,bmd->bnm", A[..., KEEP], B[..., KEEP]),
        ),
        (lambda: torch.einsum("bnd->bn", A), "einsum", {"0": {"2": KEEP}}, lambda: A[..., KEEP].sum(-1)),
        (
            lambda: torch.einsum("bnd,bnd->b", A, B),
            "einsum",
            {"0": {"2": KEEP, "1": [1, 2]}, "1": {"2": KEEP, "1": [1, 2]}},
            lambda: (A * B)[:, 1:3][..., KEEP].sum((1, 2)),
        ),
        (
            lambda: A @ B.transpose(1, 2),
            "matmul",
            {"0": {"2": KEEP}, "1": {"1": KEEP}},
            lambda: A[..., KEEP] @ B[..., KEEP].transpose(1, 2),
        ),
        (
            lambda: torch.bmm(A, B.transpose(1, 2)),
            "bmm",
            {"0": {"2": KEEP}, "1": {"1": KEEP}},
            lambda: A[..., KEEP] @ B[..., KEEP].transpose(1, 2),
        ),
        (lambda: torch.mv(W, A[0, 0]), "mv", {"0": {"1": KEEP}, "1": {"0": KEEP}}, lambda: W[:, KEEP] @ A[0, 0, KEEP]),
        (
            lambda: torch.dot(A[0, 0], B[0, 0]),
            "dot",
            {"0": {"0": KEEP}, "1": {"0": KEEP}},
            lambda: (A[0, 0, KEEP] * B[0, 0, KEEP]).sum(),
        ),
        (
            lambda: torch.addmm(torch.ones(7), A[0], W.T),
            "addmm",
            {"1": {"1": KEEP}, "2": {"0": KEEP}},
            lambda: 1 + A[0][:, KEEP] @ W.T[KEEP],
        ),
        (
            lambda: torch.baddbmm(torch.ones(5), A, B.mT),
            "baddbmm",
            {"1": {"2": KEEP}, "2": {"1": KEEP}},
            lambda: 1 + A[..., KEEP] @ B[..., KEEP].mT,
        ),
        (
            lambda: F.linear(A, W.exp()),
            "linear",
            {"0": {"2": KEEP}, "1": {"1": KEEP}},
            lambda: A[..., KEEP] @ W.exp()[:, KEEP].T,
        ),
        (
            lambda: F.scaled_dot_product_attention(A, B, A),
            "scaled_dot_product_attention",
            {"0": {"2": KEEP}, "1": {"2": KEEP}},
            lambda: (A[..., KEEP] @ B[..., KEEP].mT * 4**-0.5).softmax(-1) @ A,
        ),
        (
            lambda: F.cosine_similarity(A, B, -1),
            "cosine_similarity",
            {"0": {"2": KEEP}, "1": {"2": KEEP}},
            lambda: F.cosine_similarity(A[..., KEEP], B[..., KEEP], -1),
        ),
    ],
)
def test_contractions_sum_over_what_is_left(function, op, keep, expected):
    torch.testing.assert_close(left(function, op, keep), expected())


def test_results_with_the_axis_have_zeros_between():
    made = left(lambda: F.layer_norm(A, [4], W[0], W[1]), "layer_norm", {"0": {"2": KEEP}}, reduces=False)
    torch.testing.assert_close(made[..., KEEP], F.layer_norm(A[..., KEEP], [3], W[0, KEEP], W[1, KEEP]))
    assert not made[..., 1].any()


class Twice(nn.Module):
    """A softmax over channels in a module of its own, as often as there are samples."""

    def __init__(self):
        super().__init__()
        self.a, self.soft, self.b = nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2)
        self.other = nn.Softmax(-1)

    def forward(self, x):
        return self.b(torch.stack([self.soft(self.a(sample)) for sample in x]))


def plan_of(*statistics, keep=None):
    nothing = {"dense": 1, "slim": 1}
    return Plan("", "", {}, {}, {}, keep or {}, {}, {}, nothing, {"dense": {}, "slim": {}}, nothing, list(statistics))


def test_calls_are_counted_at_every_batch():
    reference = masked(Twice(), plan_of(entry("softmax", {"0": {"0": KEEP}}, False, "soft")))
    reference(torch.randn(1, 3))
    reference(torch.randn(1, 3))
    with pytest.raises(OtherPath, match="2 calls of softmax, and 1 with the first batch"):
        reference(torch.randn(2, 3))


def test_a_call_of_another_module_is_another_path():
    with pytest.raises(OtherPath, match="call 0 of softmax is made by soft, and was by other"):
        masked(Twice(), plan_of(entry("softmax", {"0": {"0": KEEP}}, False, "other")))(torch.randn(1, 3))
    with pytest.raises(OtherPath, match="0 of the 1 calls"):
        masked(Twice(), plan_of(entry("softmax", {"0": {"0": KEEP}}, False, "soft", call=3)))(torch.randn(1, 3))
