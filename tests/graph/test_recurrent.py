"""Recurrent layers: hidden units go from every gate, from the recurrent weight and from what reads them."""

import pytest
import torch
from torch import nn

import structprune as sp
from structprune.suites.equality import assert_slim_equals_masked, random_plan

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)}
SEQUENCE = torch.randn(3, 5, 8)
FORMS = ("module", "graph")


class Net(nn.Module):
    """`forward` is given; the modules that it uses are attributes."""

    def __init__(self, forward, **members):
        super().__init__()
        self.run = forward
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, x):
        return self.run(self, x)


def last(result):
    """h_n of what a recurrent layer returns."""
    return result[1][0] if isinstance(result[1], tuple) else result[1]


def freed(graph):
    """The units of each group, nothing being kept for a reason."""
    assert not graph.barriers
    return {group.name: group.units for group in graph.groups}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_units_of_a_stacked_bidirectional_layer_go(kind, form):
    net = Net(
        lambda self, x: self.leave(self.rnn(x)[0][:, -1]),
        rnn=KINDS[kind](8, 6, 2, bidirectional=True, batch_first=True),
        leave=nn.Linear(12, 3),
    )
    graph = assert_slim_equals_masked(net, SEQUENCE, form=form)
    assert freed(graph) == {"rnn": 4 * 6}
    assert graph.groups[0].step == 4  # one of each layer and direction at a time
    assert graph.groups[0].exact


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_layer_without_biases(kind):
    net = Net(lambda self, x: self.leave(self.rnn(x)[0]), rnn=KINDS[kind](8, 6, bias=False), leave=nn.Linear(6, 3))
    assert freed(assert_slim_equals_masked(net, SEQUENCE)) == {"rnn": 6}


READS = {
    "last": lambda h: h[-1],
    "both": lambda h: torch.cat([h[-2], h[-1]], dim=1),
    "slice": lambda h: torch.cat(list(h[-2:].unbind(0)), dim=1),
    "halves": lambda h: h.chunk(2)[1].sum(0),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("read", READS)
def test_last_states_are_read_layer_by_layer(read, form):
    width = 12 if read in ("both", "slice") else 6
    net = Net(
        lambda self, x: self.leave(READS[read](last(self.rnn(x)))),
        rnn=nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True),
        leave=nn.Linear(width, 3),
    )
    step = 3 if read == "halves" else 4  # the last two are added up, so their units go together
    graph = assert_slim_equals_masked(net, SEQUENCE, form=form)
    assert freed(graph) == {"rnn": step * 6}
    assert graph.groups[0].step == step


@pytest.mark.parametrize("form", FORMS)
def test_last_states_that_are_mixed_are_cut_at_the_same_places(form):
    net = Net(
        lambda self, x: self.leave(last(self.rnn(x)).transpose(0, 1).flatten(1)),
        rnn=nn.GRU(8, 6, 2, bidirectional=True, batch_first=True),
        leave=nn.Linear(24, 3),
    )
    assert freed(assert_slim_equals_masked(net, SEQUENCE, form=form)) == {"rnn": 6}


@pytest.mark.parametrize("form", FORMS)
def test_projected_states(form):
    net = Net(
        lambda self, x: self.leave(self.rnn(x)[0]),
        rnn=nn.LSTM(8, 9, 2, proj_size=4, bidirectional=True, batch_first=True),
        leave=nn.Linear(8, 3),
    )
    graph = assert_slim_equals_masked(net, SEQUENCE, form=form)
    assert sum(freed(graph).values()) == 4 * 9 + 4 * 4
    inner = max(graph.groups, key=lambda group: group.units)
    assert {least for _, least in inner.floors} >= {5}  # as wide as its projection, PyTorch takes it for none


@pytest.mark.parametrize("form", FORMS)
def test_first_states_that_are_parameters_are_cut_too(form):
    net = Net(
        lambda self, x: self.leave(self.rnn(x, (self.h.expand(-1, len(x), -1), self.c.expand(-1, len(x), -1)))[0]),
        rnn=nn.LSTM(8, 6, 2, batch_first=True),
        h=nn.Parameter(torch.randn(2, 1, 6)),
        c=nn.Parameter(torch.randn(2, 1, 6)),
        leave=nn.Linear(6, 3),
    )
    graph = assert_slim_equals_masked(net, SEQUENCE, form=form)
    assert freed(graph) == {"rnn": 6}  # of both layers the same, as one tensor holds the states of both
    assert {s.key for s in graph.groups[0].slices} >= {"h", "c"}


@pytest.mark.parametrize("form", FORMS)
def test_states_go_from_an_encoder_to_a_decoder_layer_by_layer(form):
    net = Net(
        lambda self, x: self.leave(self.decode(x.flip(1), self.encode(x)[1])[0]),
        encode=nn.LSTM(8, 6, 2, batch_first=True),
        decode=nn.LSTM(8, 6, 2, batch_first=True),
        leave=nn.Linear(6, 3),
    )
    assert freed(assert_slim_equals_masked(net, SEQUENCE, form=form)) == {"encode": 12}


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind):
    def run(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.leave(state[0] if isinstance(state, tuple) else state)

    net = Net(run, cell=kind(8, 6), leave=nn.Linear(6, 3))
    for form in FORMS:
        assert freed(assert_slim_equals_masked(net, SEQUENCE, form=form)) == {"cell": 6}


def test_packed_sequences():
    def run(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 4, 2]), batch_first=True)
        result, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.leave(result)

    net = Net(run, rnn=nn.LSTM(8, 6, 2, batch_first=True), leave=nn.Linear(6, 3))
    assert freed(assert_slim_equals_masked(net, SEQUENCE)) == {"rnn": 12}


def test_layers_before_and_after_follow():
    """A convolution's channels are inputs of a layer over its columns, whose units another one takes in."""
    net = Net(
        lambda self, x: self.leave(self.upper(self.lower(self.conv(x).relu().flatten(1, 2).permute(2, 0, 1))[0])[0]),
        conv=nn.Conv2d(1, 4, 3, padding=1),
        lower=nn.LSTM(4 * 6, 5, bidirectional=True),
        upper=nn.GRU(10, 6),
        leave=nn.Linear(6, 3),
    )
    graph = assert_slim_equals_masked(net, torch.randn(2, 1, 6, 7))
    assert freed(graph) == {"conv": 4, "lower": 10, "upper": 6}
    slim = sp.prune(net, random_plan(graph, 0))
    assert slim.lower.input_size == 6 * slim.conv.out_channels == slim.lower.weight_ih_l0.shape[1]
    assert slim.upper.input_size == 2 * slim.lower.hidden_size == 2 * slim.lower.weight_hh_l0.shape[1]


def test_macs_are_those_of_each_step():
    net = Net(lambda self, x: self.leave(self.rnn(x)[0]), rnn=nn.LSTM(8, 6, 2, batch_first=True), leave=nn.Linear(6, 3))
    graph = sp.trace(net.eval(), torch.randn(1, 5, 8))
    assert graph.macs_by_operator() == {"lstm": 5 * 4 * 6 * (8 + 6 + 6 + 6), "linear": 5 * 6 * 3}
    kept = {"rnn": [0, 1, 2, 3, 6, 7, 8, 11]}  # four of each layer
    assert graph.macs_by_operator(kept) == {"lstm": 5 * 4 * 4 * (8 + 4 + 4 + 4), "linear": 5 * 4 * 3}


def test_units_that_leave_the_network_stay_in_every_layer():
    graph = sp.trace(Net(lambda self, x: self.rnn(x)[0], rnn=nn.LSTM(8, 6, 2, batch_first=True)).eval(), SEQUENCE)
    assert not graph.groups
    assert any("must lose as many channels" in barrier.reason for barrier in graph.barriers)


def test_time_that_carries_channels_stays():
    net = Net(
        lambda self, x: self.leave(self.rnn(self.enter(x))[0]),
        enter=nn.Conv1d(5, 7, 1),
        rnn=nn.GRU(8, 6, batch_first=True),
        leave=nn.Linear(6, 3),
    )
    graph = assert_slim_equals_masked(net, SEQUENCE)
    assert [group.name for group in graph.groups] == ["rnn"]
    assert [barrier.reason for barrier in graph.barriers] == ["runs along an axis that carries channels"]


# --- states of zeros, and maps made of vectors ------------------------------------------------------------------


class ConvLSTM(nn.Module):
    def __init__(self, zeros):
        super().__init__()
        self.hidden, self.zeros = 6, zeros
        self.gates, self.leave = nn.Conv2d(3 + 6, 4 * 6, 3, padding=1), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        h = c = self.zeros(self, x)
        for frame in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.leave(h)


ZEROS = {
    "zeros": lambda self, x: torch.zeros(len(x), self.hidden, *x.shape[3:]),
    "new_zeros": lambda self, x: x.new_zeros(len(x), self.hidden, *x.shape[3:]),
    "ones": lambda self, x: torch.ones((len(x), self.hidden, *x.shape[3:]), dtype=x.dtype),
    "full": lambda self, x: torch.full((len(x), self.hidden, *x.shape[3:]), 0.5, dtype=x.dtype),
    "of a weight": lambda self, x: x.new_zeros(len(x), self.gates.weight.shape[0] // 4, *x.shape[3:]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zeros", ZEROS)
def test_a_state_of_one_number_is_as_wide_as_what_it_meets(zeros, form):
    graph = assert_slim_equals_masked(ConvLSTM(ZEROS[zeros]), torch.randn(2, 2, 3, 5, 5), form=form)
    assert freed(graph) == {"gates": 6}


def test_a_state_whose_width_is_a_number_in_the_code_keeps_it():
    fixed = ConvLSTM(lambda self, x: x.new_zeros(len(x), 6, *x.shape[3:])).eval()
    x = torch.randn(2, 2, 3, 5, 5)
    graph = sp.trace(fixed, x)
    assert not graph.groups
    assert "its size is a number in the model's code" in graph.barriers[0].reason
    assert freed(assert_slim_equals_masked(fixed, x, form="graph")) == {"gates": 6}


def test_a_state_that_is_written_to_is_not_one_number():
    """What is written to the second layer's place decides for the second layer."""

    def run(self, x):
        h = x.new_zeros(2, len(x), 6)
        h[1] = self.enter(x[:, 0])
        return self.leave(self.rnn(x, h)[0])

    net = Net(run, enter=nn.Linear(8, 6), rnn=nn.GRU(8, 6, 2, batch_first=True), leave=nn.Linear(6, 3))
    assert freed(assert_slim_equals_masked(net, SEQUENCE, form="graph")) == {"enter": 6}


MAPS = {
    "transposed": [nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.Conv2d(4, 3, 1)],
    "normed": [nn.BatchNorm2d(8), nn.Upsample(scale_factor=2), nn.Conv2d(8, 3, 3)],
    "pooled": [nn.GroupNorm(2, 8), nn.MaxPool2d(2), nn.Conv2d(8, 3, 1)],
    "padded": [nn.ReflectionPad2d(1), nn.Conv2d(8, 3, 3)],
    "grouped": [nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Conv2d(8, 3, 1)],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("after", MAPS)
def test_a_channel_of_a_map_goes_with_all_its_outputs_of_a_linear_layer(after, form):
    net = nn.Sequential(nn.Linear(10, 8 * 16), nn.ReLU(), nn.Unflatten(1, (8, 4, 4)), *MAPS[after])
    graph = assert_slim_equals_masked(net, torch.randn(2, 10), form=form)
    assert graph.groups[0].units == 8
    assert not graph.barriers


def test_a_map_of_a_fixed_number_of_channels_stays_in_module_form():
    net = Net(
        lambda self, x: self.leave(self.enter(x).view(-1, 8, 4, 4)), enter=nn.Linear(10, 128), leave=nn.Conv2d(8, 3, 1)
    )
    assert not sp.trace(net.eval(), torch.randn(2, 10)).groups
    assert freed(assert_slim_equals_masked(net, torch.randn(2, 10), form="graph")) == {"enter": 8}
