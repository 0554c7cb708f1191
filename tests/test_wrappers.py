"""Modules that frameworks wrap, mark or pack: the network inside is pruned, or they are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.errors import ModelError

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def cut(model: nn.Module, form: str = "module") -> tuple[sp.Plan, nn.Module]:
    graph = sp.trace(model, X, form=form)
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"macs": 0.5}, align=1)
    return plan, sp.prune(model, plan)


WRAPS = {
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "both": lambda m: torch.compile(nn.DataParallel(m)),
}


@pytest.mark.parametrize("name", WRAPS)
@pytest.mark.parametrize("form", ["module", "graph"])
def test_the_network_inside_a_wrapper_is_pruned(name: str, form: str, tmp_path: Path) -> None:
    model = network()
    wrapped = WRAPS[name](model)
    x = X.to(next(model.parameters()).device)  # DataParallel takes it to the GPU where there is one
    plan, slim = cut(wrapped, form)
    assert "0.weight" in plan.keep
    assert slim.state_dict().keys() == model.state_dict().keys()
    assert sp.verify(wrapped, slim, plan, X).passed
    sp.save(WRAPS[name](slim), plan, tmp_path)
    assert torch.equal(sp.load(tmp_path, wrapped)(x), slim(x))
    recovered = sp.recover(wrapped, WRAPS[name](slim), plan, X, ["batchnorm"]).model
    assert recovered(x).shape == model(x).shape


def test_the_network_inside_a_distributed_wrapper_is_pruned(process_group: None) -> None:
    model = network()
    plan, slim = cut(nn.parallel.DistributedDataParallel(model))
    assert type(slim) is nn.Sequential
    assert sp.verify(model, slim, plan, X).passed


class Marked(nn.Module):
    """One of its blocks may run in parallel, and it marks a stretch for the profiler."""

    def __init__(self, wrap: object) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 16, 3), wrap(nn.Conv2d(16, 16, 1)), nn.Conv2d(16, 4, 1)  # type: ignore[operator]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.profiler.record_function("stem"):
            x = self.stem(x).relu()
        return self.head(self.block(x).relu())


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel], ids=["plain", "parallel"])
@pytest.mark.parametrize("form", ["module", "graph"])
def test_wrapped_and_marked_parts_are_passed_over(wrap: object, form: str) -> None:
    model = Marked(wrap).eval()
    model.to(next(model.block.parameters()).device)
    plan, slim = cut(model, form)
    assert len(plan.groups) == 2
    assert sp.verify(model, slim, plan, X).passed


@pytest.mark.parametrize("form", ["module", "graph"])
def test_a_part_that_runs_on_gpus_is_recorded_where_nothing_is_computed(form: str) -> None:
    model = Marked(nn.DataParallel).eval()
    model.block.device_ids, model.block.src_device_obj = [0], torch.device("cuda:0")  # as with a GPU
    graph = sp.trace(model, X, form=form)
    assert {group.units for group in graph.groups} == {16}
    assert model.block.device_ids == [0]


REFUSED = {
    "scripted": (lambda: torch.jit.script(network()), "is scripted or traced"),
    "traced": (lambda: torch.jit.trace(network(), X), "is scripted or traced"),
    "scripted part": (lambda: nn.Sequential(torch.jit.script(network())), r"its module 0 \(RecursiveScriptModule\) is"),
    "compiled part": (lambda: Marked(torch.compile), r"its module block \(OptimizedModule\) is compiled"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), r"lazy parameters or buffers without a shape \(weight\)"),
    "lazy buffers": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.LazyBatchNorm2d(affine=False)), "run it once"),
    "sharded": (lambda: type("FullyShardedDataParallel", (nn.Sequential,), {})(network()), "before it was sharded"),
    "quantised": (
        lambda: torch.ao.nn.quantized.Conv2d(3, 8, 3),
        "is quantised: prune the network in floating point first",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_looked_into_is_refused_by_name(name: str) -> None:
    make, reason = REFUSED[name]
    plan, slim = cut(network())
    for step in (
        lambda m: sp.trace(m, X),
        lambda m: sp.trace(m, X, form="graph"),
        lambda m: sp.prune(m, plan),
        lambda m: sp.verify(m, slim, plan, X),
        lambda m: sp.save(m, plan, "nowhere"),
    ):
        with pytest.raises(ModelError, match=reason):
            step(make())
