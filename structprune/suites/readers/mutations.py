"""Good files with something wrong: bytes changed at random, or values of JSON, YAML and safetensors headers.

Enters a good file and a `random.Random`, leaves another; knows the formats and words that a hostile file would use,
and nothing of what reads them.
"""

from __future__ import annotations

import json
import random
from typing import Any

HOSTILE = [
    "os:system", "torch:load", "torch:save", "torch.hub:load", "builtins:eval", "builtins:exec", "subprocess:Popen",
    "torch:_import_dotted_name", "torch.serialization:load", "importlib:import_module", "functools:partial",
    "suite_networks.reader_networks:canary", "suite_networks.reader_networks:Canary",
    "torch.nn.modules.conv:Conv2d", "torch.nn:Module",
    "torch.jit:load", "operator:attrgetter", "types:FunctionType", "torch.utils.data:DataLoader", "pickle:loads",
    "_compiled_call_impl", "__call__", "__class__", "__dict__", "__init__", "forward", "_modules", "_parameters",
    "_buffers", "_forward_hooks", "_backward_hooks", "training", "register_buffer", "eval", "weight", "",
    "aten.as_strided.default", "aten._reshape_alias.default", "aten.from_file.default", "aten.set_.source_Tensor",
    "aten.resize_.default", "aten.empty_strided.default", "aten.zeros.default", "aten.index_select.default",
    "prim.device.default", "aten.repeat_interleave.self_int", "aten.lstm.input", "inductor._alloc_from_pool.default",
    "float16", "float8_e4m3fn", "int64", "complex64", "bits8", "quint8", "F64", "F4", "BOOL", "U64", "../../etc/passwd",
    "0.weight", "a.weight", "x\ny", "\u202e", "nul\0", "-1", "99", "00", "1e9", "structprune.plan/1",
    "missing", "layout",
]  # fmt: skip
TAGS = [
    "$import", "$partial", "$dict", "$ordered_dict", "$tuple", "$set", "$frozenset", "$float", "$size", "$dtype",
    "$device", "$slice", "$tensor", "$module", "$enum", "$dataclass", "$node", "$torch", "$device_of", "$training",
    "class", "same_as", "attributes", "modules", "parameters", "buffers", "key", "trains", "__metadata__",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 7, 255, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308, 1.0]
TOKENS = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"null", b"true", b"NaN", b"-", b"1e999", b"\0", b"\xff",
          b"\n", b"&a ", b"*a", b"!!python/object:os.system", b"<<: *a", b"? ", b"- ", b"  ", b"\t", b"#", b"9" * 20,
          b'"a":1,"a":2,', b"[" * 300, b'{"a":' * 300, b"\xed\xa0\x80", b"\\ud800", b"|", b">", b"%YAML 9"]  # fmt: skip


def mangled(data: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, inserted, left out, doubled, or taken for others."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place, kind = rng.randrange(len(data) + 1), rng.randrange(8)
        size = rng.choice((1, 2, 8, 64, 1024))
        if kind == 0 and data:
            place = min(place, len(data) - 1)
            data = data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + rng.choice(TOKENS) + data[place:]
        elif kind == 2:
            data = data[:place] + data[place + size :]
        elif kind == 3:
            data = data[:place] + data[place : place + size] * rng.choice((2, 3, 50)) + data[place + size :]
        elif kind == 4:
            data = data[:place] if rng.random() < 0.5 else data[place:]
        elif kind == 5:
            data = data[:place] + rng.randbytes(size) + data[place + size :]
        elif kind == 6:
            other = rng.randrange(len(data) + 1)
            data = data[:place] + data[other : other + size] + data[place + size :]
        else:
            data = data[:place] + rng.choice(TOKENS) + data[place + rng.randrange(4) :]
    return data


def odd_value(rng: random.Random, known: list[Any]) -> Any:
    """A value in the place of another: of another type, of another place, or one that a hostile file would have."""
    kind = rng.randrange(9)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice((None, True, False, [], {}, [[]], [{}], "", 0.0, rng.choice((float("nan"), float("inf")))))
    if kind == 2:
        return rng.choice(HOSTILE)
    if kind == 3:
        return "x" * rng.choice((1, 100, 5000))
    if kind == 4:
        return json.loads(json.dumps(rng.choice(known)))
    if kind == 5:
        return {rng.choice(TAGS): rng.choice((odd_value, odd_list))(rng, known)}
    if kind == 6:
        call = [{"$import": rng.choice(HOSTILE)}, {"$tuple": [rng.choice(HOSTILE)]}, {"$dict": []}]
        return {"$partial": call}
    if kind == 7:
        deep: Any = rng.choice(HOSTILE)
        for _ in range(rng.choice((2, 5, 20, 60, 210))):
            deep = [deep] if rng.random() < 0.5 else {rng.choice(TAGS): deep}
        return deep
    return odd_list(rng, known)


def odd_list(rng: random.Random, known: list[Any]) -> list[Any]:
    return [rng.choice((*NUMBERS, *HOSTILE[:6], None)) for _ in range(rng.choice((0, 1, 2, 3, 40)))]


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested lists and dicts."""
    pairs, waiting = [], [data] if isinstance(data, (dict, list)) else []
    while waiting:
        here = waiting.pop()
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            pairs.append((here, key))
            if isinstance(here[key], (dict, list)):
                waiting.append(here[key])
    return pairs


def changed(data: Any, rng: random.Random, times: tuple[int, ...] = (1, 1, 2, 4)) -> Any:
    """A copy of plain data with some values changed, left out, renamed, moved or added."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.choice(times)):
        every = places(data)
        if not every:
            break
        top = [place for place in every if place[0] is data]
        here, key = rng.choice(top if rng.random() < 0.1 else every)
        known = [container[k] for container, k in (rng.choice(every) for _ in range(4))]
        kind = rng.randrange(8)
        if kind == 0:
            del here[key]
        elif kind == 1 and isinstance(here, dict):
            here[rng.choice((*HOSTILE, *TAGS))] = here.pop(key)
        elif kind == 2 and isinstance(here, dict):
            here[rng.choice((*HOSTILE, *TAGS))] = odd_value(rng, known)
        elif kind == 3 and isinstance(here, list):
            here.insert(key, odd_value(rng, known))
        elif kind == 4 and isinstance(here[key], (int, float)):
            here[key] = here[key] + rng.choice((1, -1, 0.5))
        elif kind == 5 and isinstance(here[key], (list, dict)):
            here[key] = type(here[key])()
        else:
            here[key] = odd_value(rng, known)
        data = json.loads(json.dumps(data))  # no value in two places
    return data


def as_json(data: Any, rng: random.Random) -> bytes:
    """JSON, sometimes with a key twice."""
    text = json.dumps(data)
    if rng.random() < 0.03 and "{" in text:
        place = rng.choice([i for i, letter in enumerate(text) if letter == "{"])
        text = f'{text[: place + 1]}"keep": 1, "keep": 2, {text[place + 1 :]}'
    return text.encode("utf-8", "surrogatepass")


def other_header(weights: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header says something else of the same tensors."""
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    text = as_json(changed(header, rng), rng)
    size = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 2**31, 2**62, 2**64 - 1, len(text) - 1))
    return size.to_bytes(8, "little") + text + weights[8 + length :]
