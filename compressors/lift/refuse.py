"""Calls that an editable graph cannot keep, refused by name before anything is made of them."""

from __future__ import annotations

from typing import Any

from torch import fx
from torch._ops import OpOverload

from compressors.errors import ModelError, UnsupportedModelError
from compressors.lift import schema

_REASONS = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), "is a recurrent layer"),
    **dict.fromkeys(("embedding_bag", "_embedding_bag"), "mixes the rows of its input"),
    **dict.fromkeys(
        ("nonzero", "nonzero_static", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive"),
        "has a result whose size depends on the data",
    ),
    **dict.fromkeys(("item", "_local_scalar_dense"), "reads a number out of a tensor while the model runs"),
}
_NAMESPACES = {"aten", "prims"}
_PLAIN_MODULES = {"_operator", "math", "torch", "torch.fx.experimental.sym_node"}
_ATTENTION = "scaled_dot_product"


def refuse(node: fx.Node, name: str, where: str) -> None:
    """Raises for a call on data that cannot be lifted.

    Args:
        node: The call in the program.
        name: Base name of what it calls.
        where: Path of the module that it was made in, for the message.

    Raises:
        UnsupportedModelError: It is an operator of another library, or one whose result cannot be edited.
        ModelError: It draws random numbers, as models in training mode do.
    """
    target: Any = node.target
    place = f" in {where!r}" if where else ""
    if not isinstance(target, OpOverload):
        if getattr(target, "__module__", "") not in _PLAIN_MODULES:
            raise UnsupportedModelError(f"the model calls {name!r}{place}, which is no tensor operator")
        return
    if target.namespace not in _NAMESPACES:
        raise UnsupportedModelError(
            f"the model uses {target.namespace}::{name}{place}; Shoal knows PyTorch's own operators (aten) only"
        )
    if name in _REASONS:
        raise UnsupportedModelError(f"the model uses {name!r}{place}, which {_REASONS[name]}; Shoal cannot edit that")
    if schema.is_random(target):
        _refuse_noise(node, name, place)


def _refuse_noise(node: fx.Node, name: str, place: str) -> None:
    """Refuses active dropout inside attention, and every other random number that is used."""
    if _ATTENTION in name:
        if schema.bind(node.target, node.args, node.kwargs).get("dropout_p"):  # type: ignore[arg-type]
            raise ModelError(f"dropout in the attention{place} is active; call model.eval() before exporting")
    elif "dropout" not in name and node.users:
        raise UnsupportedModelError(f"the model draws random numbers ({name!r}{place}), so no two runs agree")
