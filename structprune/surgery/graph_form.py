"""An `fx.GraphModule` from a program and the slim tensors: the same parameters under the same names."""

from __future__ import annotations

import keyword
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import PlanError
from ..ops.laws import power, root
from ..ops.provenance import ceil, floor, larger, nearest
from . import admission
from .branched_form import Forked
from .guards import check, guard, guard_sizes, limit, takes

# Arithmetic and comparisons of sizes
_NUMBERS = ("add", "sub", "floordiv", "truediv", "mod", "eq", "ne", "lt", "le", "gt", "ge")
_FUNCTIONS = {
    "getitem": operator.getitem,
    "root": root,
    "pow": power,
    "ceil": ceil,
    "larger": larger,
    "floor": floor,
    "nearest": nearest,
    **{name: getattr(operator, name) for name in _NUMBERS},
    "mul": admission.times,
}
_LIMITS = {name: name for name in ("min", "max", "eps", "tiny")}
_GUARDS: dict[str, Callable[..., Any]] = {"check": check, "guard": guard, "guard_sizes": guard_sizes}
CONSTANTS = "_constants"
_PLAIN = {"parameter": False, "persistent": False}


def graph_module(
    program: Mapping[str, Any], layout: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> fx.GraphModule:
    """Builds the module that runs a program. Its BatchNorm and dropout follow `train()` and `eval()`.

    Args:
        program: `program` of a plan.
        layout: `layout_of` of the dense model.
        tensors: parameters and buffers by key.

    Returns:
        The module, in evaluation mode.

    Raises:
        PlanError: the program can't be built.
    """
    try:
        root = _Holder()
        for key, entry in layout.items():
            _place(root, key, tensors[entry.get("same_as", key)], entry)
        device = next((tensor.device for tensor in tensors.values()), None)
        paths = [program, *program.get("paths", [])]
        if any(path["inputs"] != program["inputs"] for path in paths):
            raise PlanError("the plan's program has paths with other inputs")
        known = {key: entry for path in paths for key, entry in path["constants"].items()}
        for key, entry in known.items():
            _place(root, f"{CONSTANTS}.{key}", _constant(entry).to(device), _PLAIN)
        kind = Forked if len(paths) > 1 else fx.GraphModule
        module = kind(root, _build(program, layout), class_name="GraphForm")
        for key, entry in layout.items():  # those that the forward pass does not use
            _place(module, key, tensors[entry.get("same_as", key)], entry)
        if known:
            constants = _Constants()
            constants._buffers = root.get_submodule(CONSTANTS)._buffers
            module._modules[CONSTANTS] = constants
        if isinstance(module, Forked):
            module.fork([_build(path, layout) for path in paths[1:]])
            module._others()  # compiled here, so that what can't be is refused here
        for path, holder in module.named_modules():  # GraphModule makes every buffer persistent
            for name in holder._buffers:
                key = f"{path}.{name}".lstrip(".")
                if path == CONSTANTS or not layout[key]["persistent"]:
                    holder._non_persistent_buffers_set.add(name)
        return module.eval()
    except PlanError:
        raise
    except Exception as error:  # what is not of the right kind may fail anywhere
        detail = (str(error).strip().splitlines() or [""])[0][:200]
        raise PlanError(f"the plan's program can't be built: {type(error).__name__}: {detail}") from error


def layout_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Describes the parameters and buffers of a model.

    Args:
        model: The model.

    Returns:
        For each key whether it is a parameter, trains, persists, and which one it is the same as.
    """
    layout: dict[str, dict[str, Any]] = {}
    first: dict[int, str] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        layout[key] = {"parameter": True, "trains": parameter.requires_grad}
        if first.setdefault(id(parameter), key) != key:
            layout[key]["same_as"] = first[id(parameter)]
    persistent = set(model.state_dict())
    for key, buffer in model.named_buffers(remove_duplicate=False):
        layout[key] = {"parameter": False, "persistent": key in persistent}
        if first.setdefault(id(buffer), key) != key:
            layout[key]["same_as"] = first[id(buffer)]
    return layout


def _constant(entry: Mapping[str, Any]) -> Tensor:
    """A constant as a tensor: complex numbers are stored as pairs, and numbers that JSON lacks as text."""
    dtype, values = _of_torch(entry["dtype"]), entry["values"]
    if dtype.is_floating_point:
        values = _as_numbers(values)
    if not dtype.is_complex:
        return torch.tensor(values, dtype=dtype).reshape(entry["shape"])
    parts = torch.tensor(values, dtype=dtype.to_real()).reshape([*entry["shape"], 2])
    return torch.view_as_complex(parts)


def _as_numbers(values: Any) -> Any:
    return [_as_numbers(value) for value in values] if isinstance(values, list) else float(values)


class _Holder(nn.Module):
    """A place for parameters and other holders."""


class _Constants(nn.Module):
    """The tensors that the dense network's code makes or holds as plain attributes.

    They go to the device of the parameters, but keep their dtype when those are cast, as in the dense network.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        for name, tensor in self._buffers.items():
            if tensor is not None:
                self._buffers[name] = tensor.to(fn(tensor).device)
        return self


def _place(root: nn.Module, key: str, tensor: Tensor, entry: Mapping[str, Any]) -> None:
    *path, last = key.split(".")
    holder = root
    for part in path:
        if part not in holder._modules:
            holder.add_module(part, _Holder())
        inner = holder._modules[part]
        assert inner is not None
        holder = inner
    if last in holder._parameters or last in holder._buffers:
        return
    if entry["parameter"]:
        same = entry.get("same_as")
        own = root.get_parameter(same) if same else nn.Parameter(tensor, requires_grad=entry["trains"])
        holder.register_parameter(last, own)
    else:
        holder.register_buffer(last, tensor, persistent=entry["persistent"])


def _build(program: Mapping[str, Any], layout: Mapping[str, Any]) -> fx.Graph:
    """The graph of a program's calls."""
    building = _Building(program, layout)
    for entry in program["nodes"]:
        node = building.call(entry)
        if entry["name"] in building.nodes:
            raise PlanError(f"the plan's program makes {entry['name']} twice")
        building.nodes[entry["name"]] = node
    building.graph.output(building.value(program["output"]))
    return building.graph


class _Building:
    """A graph in the making: `nodes` are its nodes by their names in the program."""

    def __init__(self, program: Mapping[str, Any], layout: Mapping[str, Any]) -> None:
        self.program, self.layout = program, layout
        self.graph = fx.Graph()
        self.nodes = {_name(name): self.graph.placeholder(_name(name)) for name in program["inputs"]}
        self._devices: dict[str, fx.Node] = {}
        self._training: fx.Node | None = None

    def value(self, value: Any) -> Any:
        """Reads an argument: a plain value, or an object with one tag."""
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((tag, body),) = value.items()
        if tag == "$node":
            return self.nodes[body]
        if tag == "$tuple":
            return tuple(self.value(item) for item in body)
        if tag == "$dict":
            return {key: self.value(item) for key, item in body.items()}
        if tag == "$float":
            return float(body)
        if tag == "$torch":
            return _of_torch(body)
        return self._read(tag, body)

    def _read(self, tag: str, body: Any) -> fx.Node:
        """A node for what is read from a tensor, or the network, at run time."""
        if tag == "$device_of":
            if body not in self._devices:
                self._devices[body] = self.graph.call_function(getattr, (self.nodes[body], "device"))
            return self._devices[body]
        if tag == "$dtype_of":
            return self.graph.call_function(getattr, (self.nodes[body], "dtype"))
        if tag == "$limit":
            return self.graph.call_function(limit, (self.nodes[body[1]], _allowed(body[0], _LIMITS)))
        if tag == "$training":
            if self._training is None:
                self._training = self.graph.create_node("get_attr", "training")
            return self._training
        raise PlanError(f"the plan's program holds a value of unknown kind {tag!r}")

    def call(self, entry: Mapping[str, Any]) -> fx.Node:
        """Adds a node of the program. It may call only what is listed, in allowed sizes."""
        kind, target = entry["kind"], entry["target"]
        args, kwargs = tuple(self.value(entry["args"])), {_name(k): self.value(v) for k, v in entry["kwargs"].items()}
        if kind == "get":
            return self.graph.create_node("get_attr", _known(target, self.layout))
        if kind == "constant":
            _known(target, self.program["constants"])
            return self.graph.create_node("get_attr", f"{CONSTANTS}.{target}")
        if kind == "op":
            admission.check_sizes(target.split(".")[1], args)
            return self.graph.call_function(admission.op(target, args), args, kwargs)
        if kind == "method":
            admission.check_sizes(target, args)
            return self.graph.call_method(_allowed(target, admission.METHODS), args, kwargs)
        if kind == "torch":
            admission.check_sizes(target, args)
            return self.graph.call_function(_allowed(target, admission.CREATED), args, kwargs)
        if kind == "takes":
            return self.graph.call_function(takes, (_name(target), *args))
        if kind in _GUARDS:
            return self.graph.call_function(_GUARDS[kind], (str(target), *args))
        if kind != "getitem":
            admission.check_numbers(kind, args)
        return self.graph.call_function(_FUNCTIONS[kind], args, kwargs)


def _allowed(name: str, names: Mapping[str, Any]) -> Any:
    if name not in names:
        raise PlanError(f"the plan's program calls {name}, which no program needs")
    return names[name]


def _name(name: str) -> str:
    """A name for generated code. Raises PlanError for anything but an identifier."""
    if not (isinstance(name, str) and name.isidentifier()) or keyword.iskeyword(name):
        raise PlanError(f"the plan's program holds {name!r}, which is not a valid name")
    return name


def _known(key: str, known: Mapping[str, Any]) -> str:
    if key not in known or not all(part.isidentifier() or part.isdigit() for part in key.split(".")):
        raise PlanError(f"the plan's program reads {key!r}, which the network does not have")
    return key


def _of_torch(name: str) -> Any:
    value = getattr(torch, name)
    if not isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        raise PlanError(f"the plan's program names torch.{name}, which is neither a type nor a layout")
    return value
