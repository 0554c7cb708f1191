"""Code of a user that a stranger's folder would like to reach. `RAN` tells what was reached."""

import os  # noqa: F401  (a module that a name must not be reached through)
import subprocess

import torch
from torch import nn

RAN = []


def danger(*args, **kwargs):
    RAN.append("danger")


def helper(x, path=""):
    if path:
        RAN.append("helper")
    return x


class Deletes:
    def __del__(self):
        RAN.append("__del__")


class Calls:
    def __call__(self, *args):
        RAN.append("__call__")


class Restores:
    """A record like any other, by way of none of these."""

    size = 3

    def __new__(cls, *args):
        RAN.append("__new__")
        return super().__new__(cls)

    def __init__(self):
        RAN.append("__init__")

    def __setstate__(self, state):
        RAN.append("__setstate__")

    def __setattr__(self, key, value):
        RAN.append("__setattr__")

    def __eq__(self, other):
        RAN.append("__eq__")
        return True

    def __hash__(self):
        RAN.append("__hash__")
        return 1

    def method(self):
        return self.size

    @property
    def seen(self):
        RAN.append("property")
        return 1


class Process(subprocess.Popen):
    pass


class Meta(type):
    pass


class Broken(ValueError):
    pass


class Net(nn.Module):
    act = None
    width = 16

    def __new__(cls, *args, **kwargs):
        RAN.append("Net.__new__") if kwargs.get("count") else None
        return super().__new__(cls)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
        self.helper = helper

    def __setattr__(self, key, value):
        if key == "count":
            RAN.append("Net.__setattr__")
        super().__setattr__(key, value)

    def save_to(self, path):
        RAN.append("save_to")

    @property
    def wide(self):
        RAN.append("Net.wide")
        return self.width

    def forward(self, x):
        x = self.a(x)
        x = x if self.act is None else self.act(x)
        return self.b(self.helper(x))


class WithLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.r = nn.Linear(8, 6), nn.LSTM(6, 5, batch_first=True)

    def forward(self, x):
        return self.r(self.a(x))[0]


X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
