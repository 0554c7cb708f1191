"""Networks as people write them outside timm: what their modules hold beside weights, one kind each."""

import collections
import dataclasses
import enum
import functools
import logging
import pathlib
import types
import typing
import weakref

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))  # (batch, steps, channels)


class Two(nn.Module):
    """Two layers, and a place to hang things on."""

    def __init__(self, width=16):
        super().__init__()
        self.a, self.b = nn.Linear(8, width), nn.Linear(width, 4)

    def act(self, x):
        return x.relu()

    def forward(self, x):
        return self.b(self.act(self.a(x)))


@dataclasses.dataclass
class Settings:
    width: int = 16
    inner: typing.Any = None

    def __post_init__(self):
        self.activation = "relu"


class Config:
    """As transformers' configs: other names for its attributes, a config inside, a class's defaults."""

    model_type = "toy"
    attribute_map: typing.ClassVar = {"hidden_size": "width"}
    dropout = 0.0

    def __init__(self, width=16):
        self.width, self.dropout, self.parts = width, 0.1, [1, 2]
        self.inner = Settings(width)

    def __getattribute__(self, key):
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map")[key]
        return super().__getattribute__(key)

    @property
    def use_double(self):
        return self.width > 3


class FrozenDict(collections.OrderedDict):
    """As diffusers': a dict whose entries are attributes too."""

    def __init__(self, *args):
        super().__init__(*args)
        for key, value in self.items():
            setattr(self, key, value)
        self.__frozen = True

    def __delitem__(self, key):
        raise TypeError("frozen")


class DataclassConfig(Two):
    def __init__(self, config=None):
        super().__init__()
        self.config = config or Settings(inner=Settings())

    def act(self, x):
        return getattr(torch, self.config.inner.activation)(x)


class SharedConfig(Two):
    """Every layer holds the one config, which holds itself."""

    config = None

    def __init__(self):
        super().__init__()
        self.config = self.a.config = self.b.config = Config()
        self.config.itself = self.config
        self._internal_dict = FrozenDict({"act": "relu", "p": (0.5, None)})

    def act(self, x):
        same = self.config is self.a.config is self.config.itself and self.config.use_double
        return getattr(x, self._internal_dict.act)() if same and self.config.hidden_size == 16 else x


class NamedAsMethods(Two):
    def __init__(self):
        super().__init__()
        self.type, self.half, self.i = "models.common.Two", 8, 3
        self.a.type, self.a.f, self.a.np, self.a.float = "Linear", -1, 100, True


class Fused(nn.Module):
    """As YOLO's layers after fuse(): another method does the work."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = nn.Linear(8, 16), nn.Linear(16, 4), nn.BatchNorm1d(6)

    def forward(self, x):
        return self.b(self.bn(self.a(x)).relu())

    def forward_fuse(self, x, scale=1.0):
        return self.b(self.a(x).relu()) * scale


def fused():
    net = Fused()
    net.forward = net.forward_fuse
    return net


def fused_with_numbers():
    net = Fused()
    net.forward = functools.partial(net.forward_fuse, scale=0.5)
    return net


class BoundMethods(Two):
    def __init__(self):
        super().__init__()
        self.first, self.gate = self.a.forward, self.soft_gate

    def soft_gate(self, x):
        return x.sigmoid() * x

    def forward(self, x):
        return self.b(self.gate(self.first(x)))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.a, self.r = nn.Linear(8, 12), kind(12, 6, batch_first=True, **options)
        self.b = nn.Linear(12 if options.get("bidirectional") else 6, 4)

    def forward(self, x):
        return self.b(self.r(self.a(x).relu())[0])


class Symmetric(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 0.5

    def forward(self, w):
        return w + self.scale * w.mean()

    def right_inverse(self, w):
        return w


def wrapped(wrap, **options):
    net = Two()
    wrap(net.b, **options)
    return net


def symmetric():
    net = Two()
    parametrize.register_parametrization(net.b, "weight", Symmetric())
    return net


def masked_and_hidden():
    net = Two()
    prune.l1_unstructured(net.b, "weight", 0.5)
    prune.random_unstructured(net.b, "weight", 0.2)
    return net


def double_output(module, inputs, output):
    return output * 2


class Hooked(Two):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.a.register_forward_hook(self._remember)
        self.handle = self.b.register_forward_hook(double_output)
        self.b.register_forward_pre_hook(self._positive, with_kwargs=True)

    def _remember(self, module, inputs, output):
        self.seen = [tuple(output.shape)]

    def _positive(self, module, args, kwargs):
        return (args[0].abs(),), kwargs


class Listed(Two):
    """Modules in lists and dicts too, and one that only a list holds."""

    def __init__(self):
        super().__init__()
        self.layers, self.by_name = [self.a, self.b], {"out": (self.b,)}
        self.hidden = [nn.Sequential(nn.Linear(4, 4), nn.Tanh())]
        self.parent_of_a = weakref.ref(self)

    def forward(self, x):
        assert self.parent_of_a() is self
        assert self.by_name["out"][0] is self.layers[1]
        return self.hidden[0](self.layers[1](self.layers[0](x).relu()))


class Dictionary(nn.ModuleDict):
    def __init__(self):
        super().__init__({"a": nn.Linear(8, 16), "b": nn.Linear(16, 4)})
        self.return_layers = collections.OrderedDict(a="out_a", b="out_b")
        self.concat = False

    def forward(self, x):
        made = collections.OrderedDict()
        for name, module in self.items():
            x = module(x)
            made[self.return_layers[name]] = x
        return made["out_b"]


class Kind(enum.Enum):
    RELU = "relu"
    GELU = "gelu"


class Mode(str, enum.Enum):
    FAST = "fast"


Span = collections.namedtuple("Span", ["start", "stop"])


class Typed(typing.NamedTuple):
    width: int
    kind: Kind


class Slotted:
    __slots__ = ("high", "low", "unset")

    def __init__(self):
        self.low, self.high = 1, [2]


class Everything(Two):
    limit: int = 3
    fused = True

    def __init__(self):
        super().__init__()
        self.kind, self.mode, self.span, self.typed = Kind.RELU, Mode.FAST, Span(1, 2), Typed(3, Kind.GELU)
        self.names, self.frozen, self.shape = {"b", "a"}, frozenset([1, (2, 3)]), torch.Size([1, 2])
        self.mean, self.count, self.flag = np.array([0.5, 1.5]), np.int64(3), np.bool_(True)
        self.half_, self.np_dtype = np.float32(0.5), np.dtype("float32")
        self.dtype_, self.place, self.layout = torch.float64, torch.device("cpu"), torch.channels_last
        self.space, self.queue = types.SimpleNamespace(a=1, b=[2]), collections.deque([1, 2], maxlen=3)
        self.counts, self.counter = collections.defaultdict(list, a=[1]), collections.Counter("aab")
        self.number, self.raw, self.rows, self.dots = 1 + 2j, b"\x00a", range(1, 9, 2), (..., slice(None))
        self.path, self.slots, self.nothing = pathlib.Path("a/b"), Slotted(), {1: None, (2, "x"): float("nan")}
        self.logger, self.fused, self.limit = logging.getLogger("tests.kinds"), False, 4
        self.norm_layer, self.act_layer = functools.partial(nn.LayerNorm, eps=1e-6), nn.GELU
        self.numbers = (int, float)

    @functools.cached_property
    def gain(self):
        return self.limit * 0.5

    def act(self, x):
        return x.relu() * float(self.mean.sum()) * self.gain * self.space.b[0] / self.slots.low


def swish(x, beta=1.0):
    return x * torch.sigmoid(beta * x)


class OwnFunction(Two):
    def __init__(self):
        super().__init__()
        self.activation, self.sharper = swish, functools.partial(swish, beta=2.0)

    def act(self, x):
        return self.sharper(self.activation(x))


class Matcher:
    def __init__(self, high):
        self.high = high

    def __call__(self, x):
        return x.clamp(max=self.high)


class CallableRecord(Two):
    def __init__(self):
        super().__init__()
        self.matcher = Matcher(0.7)

    def act(self, x):
        return self.matcher(x)


class Memory(nn.Module):
    def __init__(self, memory, write):
        super().__init__()
        self.memory, self.write = memory, write

    def forward(self, x):
        if self.write:
            self.memory["last"] = x.detach()
            return x
        return x + self.memory["last"]


class SharedMemory(Two):
    """One layer writes a dict that another reads."""

    def __init__(self):
        super().__init__()
        memory = {}
        self.write, self.read = Memory(memory, True), Memory(memory, False)

    def act(self, x):
        return self.read(self.write(x).relu())


class Parameters(Two):
    def __init__(self):
        super().__init__()
        self.scales = nn.ParameterList([nn.Parameter(torch.rand(16)) for _ in range(2)])
        self.shifts = nn.ParameterDict({"x": nn.Parameter(torch.rand(4))})
        self.free, self.same = [nn.Parameter(torch.rand(4))], self.b.weight
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x):
        assert self.same is self.b.weight
        x = self.a(x) * self.scales[0] + self.scales[1]
        return self.b(x.relu()) + self.shifts["x"] * self.free[0]


NETWORKS = {
    "dataclass config": DataclassConfig,
    "shared config": SharedConfig,
    "named as methods": NamedAsMethods,
    "fused": fused,
    "fused with numbers": fused_with_numbers,
    "bound methods": BoundMethods,
    "lstm": Recurrent,
    "lstm in both directions": lambda: Recurrent(bidirectional=True, num_layers=2),
    "gru": lambda: Recurrent(nn.GRU, num_layers=2),
    "rnn": lambda: Recurrent(nn.RNN, nonlinearity="relu", bias=False),
    "weight norm of old": lambda: wrapped(weight_norm),
    "weight norm as a whole": lambda: wrapped(weight_norm, dim=None),
    "spectral norm of old": lambda: wrapped(spectral_norm),
    "weight norm": lambda: wrapped(parametrizations.weight_norm),
    "spectral norm": lambda: wrapped(parametrizations.spectral_norm),
    "orthogonal": lambda: wrapped(parametrizations.orthogonal),
    "own parametrisation": symmetric,
    "masks": masked_and_hidden,
    "hooks": Hooked,
    "lists of modules": Listed,
    "dict of modules": Dictionary,
    "everything": Everything,
    "own function": OwnFunction,
    "callable record": CallableRecord,
    "shared memory": SharedMemory,
    "parameters": Parameters,
}
