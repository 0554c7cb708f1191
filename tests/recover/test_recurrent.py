"""What recurrent layers read, refitted: against lstsq on a cell written out by hand, and where a cut loses nothing."""

import pytest
import torch
from torch import nn

import structprune as sp

DATA = torch.randn(48, 7, 8, generator=torch.Generator().manual_seed(5))
LENGTHS = [7] * 6 + [5] * 5 + [2] * 5  # of a batch of 16
SQUARES = {"method": "least_squares", "ridge": 1e-9}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
KINDS = {
    "lstm": lambda **k: nn.LSTM(10, 6, **k),
    "gru": lambda **k: nn.GRU(10, 6, **k),
    "tanh": lambda **k: nn.RNN(10, 6, **k),
    "projected": lambda **k: nn.LSTM(10, 12, proj_size=4, **k),
}


class Reader(nn.Module):
    """A linear layer, a recurrent one and a linear one."""

    def __init__(self, rnn, packed=False, first=False):
        super().__init__()
        states = (1 + rnn.bidirectional) * (rnn.proj_size or rnn.hidden_size)
        self.enter, self.rnn, self.leave = nn.Linear(8, rnn.input_size), rnn, nn.Linear(states, 3)
        self.packed = packed
        self.first = nn.Parameter(torch.randn(states // (1 + rnn.bidirectional))) if first else None

    def forward(self, x):
        x = self.enter(x)
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True)
            return self.leave(nn.utils.rnn.pad_packed_sequence(self.rnn(x)[0], batch_first=True)[0])
        cells = self.rnn.num_layers * (1 + self.rnn.bidirectional)
        state = None if self.first is None else self.first.expand(cells, len(x), -1).contiguous()
        return self.leave(self.rnn(x, state)[0])


def twins(model):
    """Makes the second half of all units and inputs of `rnn` copies of the first half."""

    def alike(tensor, dim):
        parts = tensor.chunk(2, dim)
        return torch.cat([parts[0], parts[0]], dim)

    rnn = model.rnn
    states = rnn.proj_size or rnn.hidden_size
    with torch.no_grad():
        for linear, dim in ((model.enter.weight, 0), (model.enter.bias, 0)):
            linear.copy_(alike(linear, dim))
        for name, tensor in rnn.named_parameters():
            rows = rnn.proj_size if "hr" in name else rnn.hidden_size
            tensor.copy_(torch.cat([alike(gate, 0) for gate in tensor.split(rows)]))
            columns = {"ih_l0": rnn.input_size, "ih_l": states, "hh": states, "hr": rnn.hidden_size}
            size = next((size for part, size in columns.items() if "weight_" + part in name), None)
            if size is not None:
                tensor.copy_(torch.cat([alike(part, 1) for part in tensor.split(size, 1)], 1))
        for direction in model.leave.weight.split(states, 1):
            direction.copy_(alike(direction, 1))
        if model.first is not None:
            model.first.copy_(alike(model.first, 0))
    return model.eval()


def halved(model, data, ignore=()):
    """The plan and the network without the second half of each cell's units."""
    graph = sp.trace(model, data[:16])

    def first_half(group):
        states = 4 if model.rnn.proj_size and group.units % 12 else model.rnn.hidden_size
        size = 10 if group.name == "enter" else states
        return (torch.arange(group.units) % size < size // 2).double()

    scores = sp.score(graph, first_half)
    stays = sum(group.units / (1 if group.name.split(".")[0] in ignore else 2) for group in graph.groups)
    budget = {"channels": stays / sum(group.units for group in graph.groups)}
    plan = sp.plan(graph, scores, budget, allocation="uniform", align=1, ignore=list(ignore))
    return plan, sp.prune(model, plan)


def distance(model, slim):
    with torch.no_grad():
        return max(float((model(x) - slim(x)).abs().max()) for x in DATA.split(16))


HOW = {
    "deep": {"num_layers": 2, "bidirectional": True},
    "packed": {"bidirectional": True},
    "without biases": {"bias": False},
    "own first states": {},
}


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        *(("deep", "lstm"), ("deep", "gru"), ("packed", "lstm"), ("packed", "tanh"), ("packed", "projected")),
        *(("without biases", "gru"), ("without biases", "projected"), ("own first states", "tanh")),
    ],
)
def test_what_the_units_that_stay_can_tell_is_told(how, kind):
    """Each unit that goes has a twin that stays, so that the fit can be exact; as cut, half of each sum is lost."""
    torch.manual_seed(1)
    rnn = KINDS[kind](batch_first=True, **HOW[how])
    model = twins(Reader(rnn, packed=how == "packed", first=how == "own first states"))
    plan, slim = halved(model, DATA)
    done = sp.recover(model, slim, plan, DATA, [SQUARES])
    assert distance(model, slim) > 0.05
    assert distance(model, done.model) < 2e-3 * distance(model, slim)
    assert not done.notes
    assert done.layers == [2]  # the recurrent layer and the linear one


def test_all_gates_are_fitted_by_lstsq():
    """The gates of an LSTM, written out, on the dense network's own states; no twins, so that something is lost."""
    torch.manual_seed(2)
    model = Reader(nn.LSTM(10, 6, batch_first=True)).eval()
    plan, slim = halved(model, DATA)
    done = sp.recover(model, slim, plan, DATA, [SQUARES]).model.rnn
    rnn, state, cell = model.rnn, torch.zeros(48, 6), torch.zeros(48, 6)
    rows, wanted, kept = [], [], torch.tensor([0, 1, 2])
    gates_kept = torch.cat([kept + 6 * gate for gate in range(4)])
    with torch.no_grad():
        for x in model.enter(DATA).unbind(1):
            gates = rnn.weight_ih_l0 @ x.T + rnn.weight_hh_l0 @ state.T + (rnn.bias_ih_l0 + rnn.bias_hh_l0)[:, None]
            rows.append(torch.cat([x[:, :5], state[:, kept], torch.ones(48, 1)], 1))
            wanted.append(gates[gates_kept].T)
            i, f, g, o = gates.chunk(4)
            cell = f.sigmoid().T * cell + (i.sigmoid() * g.tanh()).T
            state = o.sigmoid().T * cell.tanh()
    expected = torch.linalg.lstsq(torch.cat(rows).double(), torch.cat(wanted).double()).solution.T.float()
    made = torch.cat([done.weight_ih_l0, done.weight_hh_l0, (done.bias_ih_l0 + done.bias_hh_l0)[:, None]], 1)
    torch.testing.assert_close(made.detach(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_means_of_inputs_that_never_change_are_exact(kind):
    torch.manual_seed(3)
    model = Reader(KINDS[kind](batch_first=True, bidirectional=True)).eval()
    with torch.no_grad():
        model.enter.weight[5:] = 0
    plan, slim = halved(model, DATA, ignore=["rnn"])
    assert set(plan.keep["rnn.weight_ih_l0"]) == {"1"}
    done = sp.recover(model, slim, plan, DATA, ["means"])
    assert distance(model, slim) > 0.01
    assert distance(model, done.model) < 1e-5
    bare = Reader(KINDS[kind](batch_first=True, bias=False)).eval()
    plan, slim = halved(bare, DATA, ignore=["rnn"])
    assert any("rnn has no bias" in note for note in sp.recover(bare, slim, plan, DATA, ["means"]).notes)


def test_means_of_lost_states_go_to_the_bias_beside_their_weight():
    torch.manual_seed(4)
    model = Reader(nn.GRU(10, 6, batch_first=True)).eval()
    plan, slim = halved(model, DATA, ignore=["enter"])
    done = sp.recover(model, slim, plan, DATA, ["means"]).model.rnn
    with torch.no_grad():
        states = model.rnn(model.enter(DATA))[0]
    before = torch.cat([torch.zeros(48, 1, 6), states[:, :-1]], 1).mean((0, 1))
    offset = (model.rnn.weight_hh_l0[:, 3:] @ before[3:])[plan.keep["rnn.weight_hh_l0"]["0"]]
    torch.testing.assert_close(done.bias_hh_l0, slim.rnn.bias_hh_l0 + offset)
    assert torch.equal(done.bias_ih_l0, slim.rnn.bias_ih_l0)


def test_a_layer_that_is_called_twice_keeps_its_weights():
    class Twice(Reader):
        def forward(self, x):
            x = self.enter(x)
            return self.leave(self.rnn(x)[0] + self.rnn(x.flip(1))[0])

    model = Twice(nn.GRU(10, 6, batch_first=True)).eval()
    plan, slim = halved(model, DATA)
    notes = sp.recover(model, slim, plan, DATA, ["least_squares"]).notes
    assert any("no layer holds" in note and "rnn.weight_ih_l0" in note for note in notes), notes
