"""Control flow on values: followed with the example's, and another branch is never taken in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import structprune as sp
from structprune.errors import ModelError
from structprune.verify import masked

X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
ONES = torch.ones(1, 5, dtype=torch.long)
SOME = torch.tensor([[1, 1, 0, 1, 0]])


class Masked(nn.Module):
    """What it does with the mask of its tokens is `way`."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.a, self.c, self.b = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = getattr(self, self.way)(self.a(x).relu(), mask)
        return self.b(y)

    def truth(self, y: Tensor, mask: Tensor) -> Tensor:
        return y if mask.all() else self.c(y) * mask[..., None]

    def item(self, y: Tensor, mask: Tensor) -> Tensor:
        return self.c(y) if mask.sum().item() > 3 else y.tanh()

    def real(self, y: Tensor, mask: Tensor) -> Tensor:
        return self.c(y) if mask.float().mean().item() * 2 > 1.5 else y.tanh()

    def whole(self, y: Tensor, mask: Tensor) -> Tensor:
        return y[:, : int(mask.sum())] + 1

    def listed(self, y: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([y[:, :n] if n > 3 else self.c(y) for n in mask.sum(1).tolist()])

    def places(self, y: Tensor, mask: Tensor) -> Tensor:
        rows, columns = torch.where(mask > 0)
        return self.c(y[rows, columns]) if rows.shape[0] > 3 else y[rows, columns]

    def picked(self, y: Tensor, mask: Tensor) -> Tensor:
        out = torch.zeros_like(y)
        out[mask > 0] = self.c(y[mask > 0])
        return out + y

    def array(self, y: Tensor, mask: Tensor) -> Tensor:
        return self.c(y) if mask.cpu().numpy().sum() > 3 else y

    def exits(self, y: Tensor, mask: Tensor) -> Tensor:
        return y if y.mean() > 0.1 else self.c(y)

    def caught(self, y: Tensor, mask: Tensor) -> Tensor:
        try:
            count = mask.sum().item()
        except Exception:
            count = 0
        return self.c(y) if count < 3 else y

    def in_turn(self, y: Tensor, mask: Tensor) -> Tensor:
        if mask.all():
            return y
        return y + 1 if mask.sum() > 2 else self.c(y)

    def chosen(self, y: Tensor, mask: Tensor) -> Tensor:
        """Channels by their values."""
        return y[..., torch.nonzero(y[0, 0] > -1).flatten()]


WAYS = [name for name in vars(Masked) if not name.startswith("_") and name != "forward"]


def cut(way: str, form: str, mask: Tensor = ONES) -> tuple[Any, ...]:
    net = Masked(way).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    graph = sp.trace(net, (X, mask), form=form)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.6}, align=1) if graph.groups else None
    return net, graph, plan, sp.prune(net, plan) if plan else None


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("exits", "chosen")])
def test_the_graph_form_refuses_another_branch(way: str) -> None:
    net, _, plan, slim = cut(way, "graph")
    gate = sp.verify(net, slim, plan, (X, ONES))
    if way == "truth":  # the others read numbers that grow with the batch
        assert gate.passed, gate.reasons()
    assert torch.isfinite(slim(X, ONES)).all()
    with pytest.raises(ModelError, match=r"in forward .*test_answers.py.* now, where the network's code may do"):
        slim(X, SOME)


@pytest.mark.parametrize("example", [ONES, SOME], ids=["ones", "some"])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "chosen"])
def test_the_module_form_is_right_whichever_branch_is_taken(way: str, example: Tensor) -> None:
    net, _, plan, slim = cut(way, "module", example)
    reference = masked(net, plan)
    for mask in (ONES, SOME, torch.tensor([[1, 0, 0, 0, 0]])):
        assert torch.allclose(slim(X, mask), reference(X, mask), atol=1e-6)
    assert any("control flow follows the example" in note and "test_answers.py" in note for note in plan.notes)


class Fixed(nn.Module):
    """Another branch holds a number in its code, uses a layer of its own or refuses the values."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.a(x).relu()
        if mask.all():
            return self.b(y)
        if self.way == "number":
            return self.b(y.reshape(-1, 2, 8).flip(1).reshape(1, 5, 16))
        if self.way == "layer":
            return self.c(y)
        if self.way == "refuses":
            raise ValueError("masks are not supported")
        return self.b(y[..., torch.argsort(mask.float().mean(1)).tolist() * 16])  # "chooses"


@pytest.mark.parametrize("way", ["number", "layer", "refuses", "chooses"])
def test_what_another_branch_cannot_follow_stays(way: str) -> None:
    net = Fixed(way).eval()
    graph = sp.trace(net, (X, ONES))
    if way in ("number", "chooses"):
        assert not graph.groups
        assert graph.barriers
        return
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    slim = sp.prune(net, plan)
    assert torch.allclose(slim(X, ONES), masked(net, plan)(X, ONES), atol=1e-6)
    if way == "layer":
        assert "c.weight" in plan.keep
        assert torch.allclose(slim(X, SOME), masked(net, plan)(X, SOME), atol=1e-6)
    else:
        with pytest.raises(ValueError, match="masks are not supported"):
            slim(X, SOME)


class Experts(nn.Module):
    """Each token goes to one of three experts, those without tokens are passed over."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.router, self.b = nn.Linear(8, 16), nn.Linear(8, 3), nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y, choice = self.a(x), self.router(x).argmax(-1)
        out = torch.zeros_like(y)
        for number, expert in enumerate(self.experts):
            rows, columns = torch.where(choice == number)
            if rows.numel() == 0:
                continue
            out[rows, columns] += expert(y[rows, columns])
        return self.b(out)


def test_experts_that_the_example_does_not_reach_are_cut_with_the_rest() -> None:
    net = Experts().eval()
    x = X[:, :1]  # one token, one expert
    graph = sp.trace(net, x)
    assert len(graph.groups) == 4
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.5}, align=1)
    assert all(f"experts.{i}.0.weight" in plan.keep for i in range(3))
    many = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(sp.prune(net, plan)(many), masked(net, plan)(many), atol=1e-6)


def test_an_onnx_file_of_a_graph_form_holds_the_traced_branch(tmp_path: Path) -> None:
    net, _, plan, slim = cut("truth", "graph")
    file = sp.export_onnx(slim, (X, ONES), tmp_path / "slim.onnx")
    session = onnxruntime.InferenceSession(file)
    found = session.run(None, {"x": X.numpy()} | {i.name: ONES.numpy() for i in session.get_inputs()[1:]})[0]
    assert torch.allclose(torch.from_numpy(found), masked(net, plan)(X, ONES), atol=1e-5)
    assert any("ONNX files hold this way" in note for note in plan.notes)


class Queries(nn.Module):
    """An embedding whose weight is used as it is (DETR's queries)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.queries, self.b = nn.Linear(8, 16), nn.Embedding(5, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) + self.queries.weight)


def test_an_embedding_that_is_not_looked_up_says_its_new_width() -> None:
    net = Queries().eval()
    graph = sp.trace(net, X)
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    slim = sp.prune(net, plan)
    assert slim.queries.embedding_dim == slim.queries.weight.shape[1] < 16
    assert torch.allclose(slim(X), masked(net, plan)(X), atol=1e-6)


def test_channels_that_values_choose_stay() -> None:
    _, graph, *_ = cut("chosen", "module")
    assert not graph.groups
    assert any("follow from the values of channels" in barrier.reason for barrier in graph.barriers)


def test_a_model_that_asks_for_values_needs_some() -> None:
    with pytest.raises(ModelError, match=r"first by is_nonzero in forward .*: ModelError: the model or its exam"):
        sp.trace(Masked("truth"), (X.to("meta"), ONES.to("meta")))
