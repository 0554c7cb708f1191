"""Two processes that train a network, cut it and train the slim one: `python -m tests.train.two_processes OUT`.

The environment says which each is (RANK), as under `accelerate launch`. Writes what each process has to OUT.RANK.
"""

import importlib
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

import structprune as sp
from structprune.errors import RecipeError
from structprune.recipe import TrainSpec
from structprune.train import fit

IMAGES = 32  # in all, and in the one batch that the processes share


def data():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (IMAGES,), generator=generator)
    return torch.randn(IMAGES, 1, 6, 6, generator=generator) + labels[:, None, None, None], labels


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    )


def main(out):
    torch.set_num_threads(1)
    images, labels = data()
    spec = TrainSpec(epochs=1, batch_size=IMAGES, opt="momentum", lr=0.5, sched="constant")
    dense = fit(network(), TensorDataset(images, labels), spec, seed=0, checkpoint=Path(f"{out}.dense"))
    graph = sp.trace(dense, images[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), {"channels": 0.6}, align=1)
    slim = sp.prune(dense, plan)
    for norm in slim.modules():  # frozen, so that a step on all images is the mean of the processes' steps
        if isinstance(norm, nn.BatchNorm2d):
            norm.register_forward_pre_hook(lambda module, args: module.train(False) and None)
    before = {key: value.clone() for key, value in slim.state_dict().items()}
    slim._is_accelerate_prepared = True  # as on a network that was copied with all its marks
    fit(slim, TensorDataset(images, labels), spec, seed=0, checkpoint=Path(f"{out}.slim"))
    stopping = TrainSpec(epochs=6, batch_size=IMAGES // 2, lr=0.05, sched="constant", patience=1, clip_grad=1.0)
    torch.manual_seed(int(os.environ["RANK"]))  # what one process alone would measure
    noise = TensorDataset(torch.randn(24, 1, 6, 6), torch.randint(0, 3, (24,)))
    said = []
    stopped = fit(
        network(), TensorDataset(images, labels), stopping, validation=noise, seed=0,
        checkpoint=Path(f"{out}.stopped"), tell=said.append,
    )  # fmt: skip
    for odd in ({"batch_size": 9}, {"batch_size": 6, "mixup": 0.5}):
        try:
            uneven = spec.model_copy(update=odd)
            fit(network(), TensorDataset(images, labels), uneven, seed=0, checkpoint=Path(f"{out}.odd"))
        except RecipeError as error:
            said.append(str(error))
    found = {
        "stopped": stopped.state_dict(),
        "said": said,
        "dense": dense.state_dict(),
        "before": before,
        "slim": slim.state_dict(),
    }
    torch.save(found, f"{out}.{os.environ['RANK']}")


LATE = ("accelerate", "timm.optim", "timm.scheduler", "torch.fx.experimental.proxy_tensor")  # imported once for both

if __name__ == "__main__":
    for name in LATE:
        importlib.import_module(name)
    for rank in ("0", "1"):
        if not os.fork():
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
            main(sys.argv[1])
            sys.exit()
    ends = [os.wait()[1] for _ in range(2)]
    sys.exit(any(ends))
