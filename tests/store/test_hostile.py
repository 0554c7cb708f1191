"""Descriptions by someone who means harm: nothing that they name is called or stored where it would be."""

import copy
import json
import random

import numpy
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import structprune as sp
from structprune.errors import StoreError
from structprune.store import admission, architecture
from tests.forged_folders import forge
from tests.store import hostile_kinds, outside_kinds
from tests.store.hostile_kinds import RAN, Net, WithLSTM, X

HERE = "tests.store.hostile_kinds"


@pytest.fixture(autouse=True)
def _nothing_runs():
    RAN.clear()
    yield
    assert RAN == []


def _described(net):
    description, weights = architecture.describe(net)
    return json.loads(json.dumps(description)), {key: tensor.clone() for key, tensor in weights.items()}


def _refused(change, net=None, reason=""):
    description, weights = _described(net or Net().eval())
    change(description)
    with pytest.raises(StoreError, match=reason) as caught:
        architecture.build(json.loads(json.dumps(description)), weights)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def _named(name):
    return {"$import": name}


def _bound(function, *args, **kwargs):
    return {"$partial": [function, {"$tuple": list(args)}, {"$dict": [[k, v] for k, v in kwargs.items()]}]}


NAMES = [
    *("torch:load", "torch:save", "torch:_import_dotted_name", "torch:compile", "torch:empty", "torch:from_file"),
    *("torch:as_strided", "torch.hub:load", "torch.jit:load", "torch.serialization:load", "torch.ops:load_library"),
    *("torch.utils.cpp_extension:load", "torch.utils.checkpoint:checkpoint", "torch.nn.functional:torch.load"),
    *(
        "torch.nn.functional:handle_torch_function",
        "torch.nn.functional:boolean_dispatch",
        "torch.package:PackageImporter",
    ),
    *("builtins:eval", "builtins:exec", "builtins:open", "builtins:__import__", "builtins:getattr", "builtins:compile"),
    *("operator:attrgetter", "operator:methodcaller", "operator:call", "functools:partial", "functools:reduce"),
    *("os:system", "posix:system", "subprocess:Popen", "importlib:import_module", "pickle:loads", "types:FunctionType"),
    *("timm.models:load_checkpoint", "timm.models._helpers:load_state_dict", "timm.layers:torch.load", "numpy:load"),
    *("structprune.store.atomic_files:write_all", "structprune:load", "safetensors.torch:load_file", "copy:deepcopy"),
    *("torch.nn.modules.module:Module.apply", "torch.nn.parallel.data_parallel:DataParallel"),
    *("torch.jit._script:RecursiveScriptModule", "torch.fx.graph_module:GraphModule", "math:__loader__"),
    *(f"{HERE}:{name}" for name in ("danger", "os.system", "Net", "Net.save_to", "Calls", "subprocess.Popen", "RAN")),
    *("", ":", "torch", ":load", "torch:", "torch:nn.functional.relu", f"{HERE}:helper.__globals__", "a" * 5000 + ":b"),
]
PLACES = {
    "attribute": lambda d, value: d["attributes"].update(act=value),
    "inner attribute": lambda d, value: d["modules"]["a"]["attributes"].update(act=value),
    "list": lambda d, value: d["attributes"].update(act=[value]),
    "key": lambda d, value: d["attributes"].update(act={"$dict": [[value, 1]]}),
    "bound": lambda d, value: d["attributes"].update(act=_bound(value, "no-such-file", weights_only=False)),
    "bound to a listed one": lambda d, value: d["attributes"].update(act=_bound(_named("builtins:max"), key=value)),
    "factory": lambda d, value: d["attributes"].update(act={"$default_dict": [value, []]}),
    "hook": lambda d, value: d.update(hooks={"_forward_hooks": [{"call": value}]}),
    "record": lambda d, value: d["attributes"].update(act={"$record": [f"{HERE}:Restores", [["act", value]], None]}),
}


@pytest.mark.parametrize("place", PLACES)
def test_only_listed_functions_are_named(place):
    for name in NAMES:
        _refused(lambda d, name=name: PLACES[place](d, _named(name)))


def test_listed_and_own_functions_are_bound_to_what_they_may_hold():
    own = _named(f"{HERE}:helper")
    for held in ("path", {"$path": "/"}, {"$bytes": "YQ=="}, ["x"], own, {"$dict": [["a", "b"]]}):
        _refused(lambda d, held=held: d["attributes"].update(act=_bound(own, held)), reason="more than numbers")
        _refused(lambda d, held=held: d["attributes"].update(act=_bound(own, path=held)), reason="more than numbers")
    _refused(lambda d: d["attributes"].update(act=_bound(_bound(own))), reason="is not a function")
    _refused(lambda d: d["attributes"].update(act={"$partial": [own, [1], {"$dict": []}]}), reason="is not a function")
    record = {"$record": [f"{HERE}:Restores", [], None]}
    _refused(lambda d: d["attributes"].update(act=_bound(record)), reason="is not a function")


def test_what_the_class_defines_can_t_be_hidden():
    values = [
        1,
        "x",
        None,
        [],
        _named("torch.nn.functional:relu"),
        {"$module": "a"},
        {"$method": [{"$module": ""}, "x"]},
    ]
    for name in sorted({*dir(Net()), *dir(nn.Module), "__getattr__", "__call__", "__anything", "_call_impl"}):
        if name in ("act", "helper", "width", "a", "b"):
            continue
        for value in values:
            plain = value is None or isinstance(value, (int, str, list))
            if name in admission.HIDEABLE and plain:
                continue
            _refused(lambda d, n=name, v=value: d["attributes"].update({n: v}))
    _refused(lambda d: d["attributes"].update(width=_named("torch.nn.functional:relu")), reason="hides")
    _refused(lambda d: d["attributes"].update(forward={"$method": [{"$module": ""}, "save_to"]}), reason="not a method")
    _refused(lambda d: d["attributes"].update(forward=_named("torch.nn.functional:relu")), reason="hides")


@pytest.mark.parametrize(
    "name", ["__reduce__", "__init__", "apply", "load_state_dict", "save_to", "to", "wide", "nothing", ""]
)
def test_methods_that_may_not_be_bound(name):
    for value in ({"$method": [{"$module": ""}, name]}, _bound({"$method": [{"$module": ""}, name]}, 1)):
        _refused(lambda d, value=value: d["attributes"].update(act=value), reason="may name")
        _refused(lambda d, value=value: d.update(hooks={"_forward_pre_hooks": [{"call": value}]}), reason="may name")


def test_a_bound_forward_takes_no_text():
    _refused(lambda d: d["attributes"].update(forward=_bound({"$method": [{"$module": ""}, "forward"]}, "x")))
    _refused(
        lambda d: d["attributes"].update(act={"$method": [_named("torch:relu"), "forward"]}), reason="that is not a"
    )


@pytest.mark.parametrize(
    "name",
    [
        *("os:PathLike", "builtins:type", "builtins:dict", f"{HERE}:Calls", f"{HERE}:danger", f"{HERE}:nn.Linear"),
        *(
            "torch.jit._script:ScriptModule",
            "torch.fx.graph_module:GraphModule",
            "torch._dynamo.eval_frame:OptimizedModule",
        ),
        *("torch.nn.parallel.data_parallel:DataParallel", "torch.nn.parallel.distributed:DistributedDataParallel"),
        *("structprune.verify.masked_reference:MaskedStatistics", "torch.nn:Linear", "torch.nn.modules.nowhere:Linear"),
        *(
            "timm.models.nowhere:Net",
            "timm.data.loader:PrefetchLoader",
            "antigravity:Net",
            "tests.no_such:Net",
            "",
            "Net",
        ),
    ],
)
def test_classes_of_modules(name):
    _refused(lambda d: d.update({"class": name}))
    _refused(lambda d: d["modules"]["a"].update({"class": name}))


@pytest.mark.parametrize(
    ("name", "state"),
    [
        *(
            (f"{HERE}:{cls}", [])
            for cls in ("Deletes", "Calls", "Process", "Meta", "Broken", "Net", "danger", "subprocess")
        ),
        *(
            (name, [])
            for name in ("subprocess:Popen", "threading:Thread", "torch:Generator", "builtins:dict", "io:StringIO")
        ),
        *(
            (name, [])
            for name in ("torch.nn.modules.linear:Linear", "collections:OrderedDict", "structprune.records:Plan")
        ),
        (f"{HERE}:Restores", [["method", 1]]),
        (f"{HERE}:Restores", [["seen", 1]]),
        (f"{HERE}:Restores", [["size", {"$import": "torch:relu"}]]),
        (f"{HERE}:Restores", [["__class__", 1]]),
        (f"{HERE}:Restores", [["__dict__", {"$dict": []}]]),
    ],
)
def test_records(name, state):
    _refused(lambda d: d["attributes"].update(act={"$record": [name, state, None]}))


def test_a_record_is_made_without_asking_its_class():
    description, weights = _described(Net())
    fields = [["size", 5], ["more", {"$list": [1]}]]
    description["attributes"]["config"] = {"$record": [f"{HERE}:Restores", fields, None], "$id": 0}
    description["attributes"]["again"] = {"$ref": 0}
    net = architecture.build(description, weights)
    assert vars(net.config) == {"size": 5, "more": [1]}
    assert net.again is net.config
    description["attributes"]["config"] = {"$set": [{"$ref": 0}, {"$ref": 0}]}
    description["attributes"] = {
        "x": {"$record": [f"{HERE}:Restores", [], None], "$id": 0},
        **description["attributes"],
    }
    with pytest.raises(StoreError, match="as a key"):
        architecture.build(description, weights)


@pytest.mark.parametrize(
    "value",
    [
        {"$enum": ["enum:Enum", "x"]}, {"$enum": [f"{HERE}:Net", "act"]}, {"$enum": ["torch.nn.utils.x:Y", "z"]},
        {"$dtype": "load"}, {"$dtype": "os"}, {"$dtype": 1}, {"$layout": "float32"}, {"$memory_format": "compile"},
        {"$device": "nowhere"}, {"$device": 0}, {"$path": 1}, {"$logger": None}, {"$float": "x"}, {"$bytes": "?"},
        {"$number": ["object", "1"]}, {"$number": ["float32", "__import__('os')"]}, {"$number": ["int64", "1" * 10**4]},
        {"$numpy": "O"}, {"$numpy": [["a", "O"]]}, {"$ref": 0}, {"$ref": [1]}, {"$module": "nowhere"}, {"$module": 1},
        {"$tensor": {"key": "nowhere", "trains": False}}, {"$tensor": 1}, {"$array": "a"}, {"$weak": 1},
        {"$generator": ["cpu", {"key": "a.weight", "trains": False}]}, {"$named_tuple": [f"{HERE}:Restores", []]},
        {"$hidden": ["", {}]}, {"$hidden": 1}, {"$unknown": 1}, {}, {"$list": 1, "$tuple": []}, {"$tuple": {}},
        {"$record": 1}, {"$record": []}, {"$deque": ["x", []]}, {"$set": [[1]]}, {"$partial": []}, {"$dict": [[1]]},
        {"$namespace": [["__class__", 1]]}, {"$arguments": [["__dict__", 1]]}, {"$slice": 1}, {"$range": ["a"]},
    ],
)  # fmt: skip
def test_values_that_are_none(value):
    _refused(lambda d: d["attributes"].update(act=value))
    _refused(lambda d: d["attributes"].update(act=[{"$tuple": [value]}]))


TREES = {
    "itself": lambda d: d["modules"].update(a={"same_as": ""}),
    "nowhere": lambda d: d["modules"].update(a={"same_as": "nowhere"}),
    "dots": lambda d: d["modules"].update({"a.b": d["modules"]["a"]}),
    "dunder": lambda d: d["modules"].update({"__class__": d["modules"]["a"]}),
    "no name": lambda d: d["parameters"].update({"": d["modules"]["a"]["parameters"]["weight"]}),
    "parameter": lambda d: d["parameters"].update({"__dict__": d["modules"]["a"]["parameters"]["weight"]}),
    "no tensor": lambda d: d["modules"]["a"]["parameters"]["weight"].update(key="nowhere"),
    "parametrised forward": lambda d: d.update(parametrized=["forward"]),
    "parametrised parameter": lambda d: d["modules"]["a"].update(parametrized=["weight"]),
    "hooks of no kind": lambda d: d.update(hooks={"_backward_hooks": [{"call": _named("torch:relu")}]}),
    "a hook of no kind": lambda d: d.update(hooks={"_forward_hooks": [{"run": 1}]}),
    "a hook of two kinds": lambda d: d.update(hooks={"_forward_hooks": [{"call": _named("torch:relu"), "mask": 1}]}),
    "features": lambda d: d.update(hooks={"_forward_hooks": [{"features": [{"$module": "a"}, "x"]}]}),
    "a layer as a hook": lambda d: d.update(hooks={"_forward_hooks": [{"call": {"$module": "a"}}]}),
    "norm of forward": lambda d: d.update(hooks={"_forward_pre_hooks": [{"weight_norm": ["forward", 0]}]}),
    "norm of nothing": lambda d: d.update(hooks={"_forward_pre_hooks": [{"weight_norm": ["weight", 0]}]}),
    "mask of eval": lambda d: d.update(hooks={"_forward_pre_hooks": [{"mask": ["eval"]}]}),
}


@pytest.mark.parametrize("kind", TREES)
def test_trees_that_are_none(kind):
    _refused(TREES[kind])


def _taller(tensors, key):
    tensors[key] = tensors[key][: len(tensors[key]) // 2].clone()


@pytest.mark.parametrize(
    "change", ["hidden_size", "input_size", "num_layers", "mode", "bidirectional", "proj_size", "weights"]
)
def test_an_lstm_reads_no_foreign_memory(change):
    """Its kernel trusts the sizes that it is given."""
    description, weights = _described(WithLSTM().eval())
    numbers = {
        "hidden_size": 500,
        "input_size": 60,
        "num_layers": 2,
        "mode": "GRU",
        "bidirectional": True,
        "proj_size": 3,
    }
    if change == "weights":
        weights["r.weight_hh_l0"] = weights["r.weight_hh_l0"][:8].clone()
    else:
        description["modules"]["r"]["attributes"][change] = numbers[change]
    with pytest.raises(StoreError, match=r"recurrent layer|makes it"):
        architecture.build(description, weights)


@pytest.mark.parametrize("wrap", [weight_norm, parametrizations.weight_norm])
def test_a_weight_norm_reads_no_foreign_memory(wrap):
    net = outside_kinds.wrapped(wrap)
    description, weights = _described(net)
    key = next(key for key in weights if key.endswith(("weight_g", "original0")))
    weights[key] = weights[key][:1].clone()
    with pytest.raises(StoreError, match="has lengths of shape"):
        architecture.build(description, weights)
    if wrap is not weight_norm:
        description, weights = _described(net)
        norm = description["modules"]["b"]["modules"]["parametrizations"]["modules"]["weight"]["modules"]["0"]
        description["modules"]["a"] = norm
        with pytest.raises(StoreError, match="puts a normalisation of weights"):
            architecture.build(description, weights)


def test_a_folder_that_was_signed_anew(tmp_path):
    graph = sp.trace(Net().eval(), X[:1])
    plan = sp.plan(graph, sp.score(graph, "l1"), budget={"params": 0.7}, align=1)
    slim = sp.prune(graph.model, plan)
    for number, (place, name) in enumerate([("attribute", "torch:load"), ("hook", f"{HERE}:danger")]):
        folder = sp.save(slim, plan, tmp_path / str(number))
        assert torch.equal(sp.load(folder)(X), slim(X))
        forge(folder, lambda d, p=place, n=name: PLACES[p](d["architecture"], _named(n)))
        with pytest.raises(StoreError, match=name):
            sp.load(folder)
    folder = sp.save(slim, plan, tmp_path / "attributes")
    forge(folder, lambda d: d["attributes"].setdefault("", {}).update(wide=1, count=1))
    sp.load(folder)  # what the plan says of attributes is compared, and no property is asked


def _places(node, path=()):
    yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _places(value, (*path, key))


@pytest.mark.parametrize("name", ["everything", "shared config", "lstm", "weight norm", "hooks", "lists of modules"])
def test_whatever_stands_anywhere_is_read_or_refused(name):
    torch.manual_seed(0)
    description, weights = _described(outside_kinds.NETWORKS[name]().eval())
    places, dice = list(_places(description))[1:], random.Random(0)
    other = [None, True, -1, 10**30, 0.5, "x", "", "__class__", [], {}, [[]], {"$import": "torch:load"}, {"$ref": 0}]
    refused = 0
    for _ in range(300):
        changed = copy.deepcopy(description)
        *path, last = dice.choice(places)
        holder = changed
        for step in path:
            holder = holder[step]
        holder[last] = dice.choice(other)
        try:
            built = architecture.build(changed, dict(weights))
        except StoreError:
            refused += 1
        else:
            assert isinstance(built, nn.Module)
    assert refused > 0
    assert hostile_kinds.RAN == []


def test_a_description_nested_without_end(tmp_path):
    description, weights = _described(Net())
    node = description
    for _ in range(5000):
        node["modules"]["a"] = {**copy.copy(description), "modules": {}}
        node = node["modules"]["a"]
    with pytest.raises(StoreError):
        architecture.build(description, weights)
    assert hostile_kinds.RAN == []


def test_the_state_of_a_generator_is_one_that_torch_has():
    """`set_state` takes any position, and then hands out what lies behind its numbers."""
    from structprune.store.admission import Admission
    from structprune.store.decoding import Decoder

    state = torch.Generator().get_state()
    decoder = Decoder(Admission(), {}, lambda body: state, lambda body: nn.Identity())
    assert torch.equal(decoder.value({"$generator": ["cpu", {}]}).get_state(), state)
    numbers = state.numpy()
    numbers[8:12] = numpy.frombuffer(numpy.int32(624).tobytes(), numpy.uint8)
    numbers[16:24] = numpy.frombuffer(numpy.int64(624).tobytes(), numpy.uint8)
    with pytest.raises(StoreError, match="torch never has"):
        decoder.value({"$generator": ["cpu", {}]})


def test_a_network_too_deep_to_describe_is_saved_and_says_so(tmp_path):
    net: nn.Module = nn.Linear(4, 8)
    for _ in range(150):
        net = nn.Sequential(net)
    net = nn.Sequential(net, nn.ReLU(), nn.Linear(8, 2)).eval()
    graph = sp.trace(net, torch.randn(1, 4))
    plan = sp.plan(graph, sp.score(graph, "l1"), {"macs": 0.6}, align=1)
    slim = sp.prune(net, plan)
    with pytest.warns(UserWarning, match="can't be described"):
        sp.save(slim, plan, tmp_path / "deep")
    x = torch.randn(2, 4)
    assert torch.equal(sp.load(tmp_path / "deep", net)(x), slim(x))


def test_listed_functions_are_bound_to_data_alone():
    """Python's own call methods of what they are given, and a key function with it."""
    import functools

    from structprune.store.value_kinds import bindable

    admitted = admission.Admission()

    class Opens(dict):
        """A record whose methods do something."""

    for function, args, kwargs in (
        (max, ("http://host/x",), {"key": hostile_kinds.helper}),
        (sum, (Opens(),), {}),
        (torch.nn.functional.relu, (Opens(),), {}),
        (torch.nn.functional.relu, (functools.partial(hostile_kinds.helper, 1),), {}),
    ):
        assert not bindable(admitted, function, args, kwargs)
    assert bindable(admitted, torch.nn.functional.softmax, (), {"dim": -1})
    assert bindable(admitted, torch.nn.functional.interpolate, (), {"mode": "nearest", "scale_factor": 2.0})
