"""Broken `.pt2` files: the program's JSON, the weights' configs and bytes, the zip around them."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

from benchmarks.fuzz.pt2_seeds import seeds
from benchmarks.fuzz.trees import change_any, change_integer, change_leaf, slots
from benchmarks.fuzz.values import FLOATS, PATHS, STRINGS, Random, chance, integer, mangle, pick
from benchmarks.fuzz.zips import mangle_zip

_PROGRAM = "models/model.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TARGETS = (
    *("torch.ops.aten.add.Tensor", "torch.ops.aten.view.default", "torch.ops.aten.relu_.default", "_operator.mul"),
    *("torch.ops.aten.zeros.default", "torch.ops.aten.expand.default", "torch.ops.aten.repeat.default", "math.floor"),
    *(
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.constant_pad_nd.default",
        "torch.ops.aten.cat.default",
        "_operator.pow",
    ),
    *(
        "torch.ops.aten.from_file.default",
        "torch.os.system",
        "torch.ops.aten.arange.default",
        "torch.ops.aten.item.default",
    ),
    *(
        "torch.ops.aten.nonexistent.default",
        "torch.ops.prim.device.default",
        "torch.ops.aten.sym_size.int",
        "_operator.getitem",
    ),
    *(
        "torch.ops.higher_order.wrap_with_set_grad_enabled",
        "torch.ops.aten.resize_.default",
        "torch.ops.aten.as_strided.default",
    ),
    *(
        "torch.ops.aten.set_.source_Storage_storage_offset",
        "torch.ops.aten.__class__.default",
        "torch.sym_int",
        "torch.sym_max",
    ),
    *(
        "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.lstm.input",
        "torch.ops.aten.einsum.default",
        "torch.sym_ite",
    ),
    *(
        "torch.ops.aten.batch_norm.default",
        "torch.ops.aten.index.Tensor",
        "torch.ops.aten.randn.default",
        "torch.ops.aten.tile.default",
    ),
    *("torch.ops.aten.interpolate.default", "torch.ops.aten.upsample_nearest2d.vec", "torch.ops.aten.linspace.default"),
)
_EXPRESSIONS = (
    *(
        "s0",
        "Symbol('s0')",
        "2*s0",
        "s0**8",
        "s0**2**2",
        "9**9**9",
        "Pow(9, 9)",
        "-s0",
        "s0/0",
        "1/0",
        "Mod(s0, 0)",
        "",
    ),
    *(
        "FloorDiv(s0, 0)",
        "Integer(10**100)",
        "99999999999999999999",
        "s0 +",
        "x.y",
        "zuf0",
        "u0",
        "Max(s0)",
        "Max()",
        "(",
    ),
    *(
        "Symbol('s0', positive=True, integer=True)",
        "Eq(s0, s0)",
        "Where(1, 2, 3)",
        "(" * 300,
        "-" * 9000 + "1",
        "1+" * 3000 + "1",
    ),
    *(
        "s0 if s0 else 1",
        "[1 for _ in s0]",
        "s0[0]",
        "Float('1e400')",
        "1e400",
        "0x" + "f" * 4000,
        "1j",
        "True",
        "None",
        "b'x'",
    ),
    *(
        "Symbol()",
        "Symbol(1)",
        "Integer('x')",
        "Rational(1, 0)",
        "ModularIndexing(s0, 0, 0)",
        "PowByNatural(s0, -1)",
        "Add(*s0)",
    ),
    *(
        "Identity(Identity(s0))",
        "s0 < 3 < s0",
        "s0*" * 400 + "1",
        "(s0 + 1)*" * 30 + "1",
        "Add",
        "Max",
        "s999",
        "ToFloat(s0)",
    ),
)


def build(random: Random) -> dict[str, bytes]:
    """Returns one case: files by name; the first is the model."""
    entries = dict(pick(random, _seeds()))
    if chance(random, 0.9):
        _change(random, entries)
    named = {f"model/{name}": data for name, data in entries.items()}
    if chance(random, 0.12):
        return {"net.pt2": mangle_zip(random, named)}
    data = _packed(named)
    return {"net.pt2": mangle(random, data, data) if chance(random, 0.05) else data}


def whole() -> list[dict[str, bytes]]:
    """Returns the seeds as cases, unbroken."""
    return [{"net.pt2": _packed({f"model/{name}": data for name, data in entries.items()})} for entries in _seeds()]


def _change(random: Random, entries: dict[str, bytes]) -> None:
    kind = int(random.integers(20))
    if kind == 0:
        name = pick(random, list(entries))
        entries[name] = mangle(random, entries[name], b"\xff" * 300)
    elif kind == 1:
        entries.pop(pick(random, list(entries)))
    elif kind == 2:
        entries[pick(random, list(entries))] = entries[pick(random, list(entries))]
    elif kind == 3:
        name = pick(
            random, ("data/weights/model.pt", "data/weights/weight_0", "code/x.py", "extra/a", "byteorder", "data.pkl")
        )
        entries[name] = b"\x80\x02." * 10
    else:
        name = pick(random, _CONFIGS) if kind < 7 else _PROGRAM
        value = copy.deepcopy(_parsed(entries[name]))
        for _ in range(int(random.geometric(0.6))):
            pick(random, _WAYS)(random, value)
        entries[name] = json.dumps(value).encode()


def _parsed(data: bytes) -> Any:
    return json.loads(data)


@cache
def _seeds() -> list[dict[str, bytes]]:
    return seeds()


def _packed(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _any_slot(random: Random, value: Any) -> None:
    change_any(random, value, _texts())


def _leaf(random: Random, value: Any) -> None:
    change_leaf(random, value, _texts())


@cache
def _texts() -> tuple[str, ...]:
    return STRINGS + PATHS + _EXPRESSIONS + _TARGETS


def _keyed(random: Random, value: Any, wanted: str, choices: tuple[Any, ...]) -> None:
    found = [(holder, key) for holder, key in slots(value) if key == wanted]
    if found:
        holder, key = pick(random, found)
        holder[key] = pick(random, choices)


def _target(random: Random, value: Any) -> None:
    """Calls another operator."""
    _keyed(random, value, "target", _TARGETS)


def _expression(random: Random, value: Any) -> None:
    """Changes a size expression, or makes one of a size."""
    if chance(random, 0.7):
        _keyed(random, value, "expr_str", _EXPRESSIONS)
        return
    found = [(holder, key) for holder, key in slots(value) if key == "as_int"]
    if found:
        holder, _ = pick(random, found)
        holder.clear()
        hint = pick(random, (None, {"as_int": integer(random)}))
        holder["as_expr"] = {"expr_str": pick(random, _EXPRESSIONS), "hint": hint}


def _name(random: Random, value: Any) -> None:
    """Lets something refer to another value."""
    names = [holder[key] for holder, key in slots(value) if key == "name" and isinstance(holder[key], str)]
    if names:
        _keyed(random, value, "name", (*names, "nowhere", "", "self", "x y", "1a", "a.b", "def"))


def _argument(random: Random, value: Any) -> None:
    """Gives an argument another kind."""
    found = [(holder, key) for holder, key in slots(value) if key == "arg" and isinstance(holder[key], dict)]
    if found:
        holder, key = pick(random, found)
        kinds = {"as_int": integer(random), "as_ints": [integer(random) for _ in range(3)], "as_none": True}
        kinds |= {"as_float": pick(random, FLOATS), "as_string": pick(random, STRINGS), "as_bool": True}
        kinds |= {"as_tensor": {"name": "x"}, "as_tensors": [{"name": "x"}], "as_scalar_type": integer(random)}
        kinds |= {"as_layout": integer(random), "as_memory_format": integer(random), "as_graph": {}, "as_operator": "x"}
        kinds |= {"as_sym_int": {"as_int": integer(random)}, "as_sym_ints": [{"as_name": "s0"}], "as_floats": [0.5]}
        kinds |= {
            "as_optional_tensors": [{"as_none": True}],
            "as_device": {"type": "cuda", "index": 99},
            "as_string_to_argument": {},
        }
        name = pick(random, list(kinds))
        holder[key] = {name: kinds[name]}


_WAYS: tuple[Callable[[Random, Any], None], ...] = (
    *(
        _any_slot,
        _any_slot,
        _leaf,
        _leaf,
        change_integer,
        change_integer,
        _target,
        _expression,
        _name,
        _argument,
        _argument,
    ),
)
