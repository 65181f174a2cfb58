"""Matrix products with stored weights are linear layers, whatever exporters make of them.

`MatMul(x, W) [+ b]` is `Linear(x, W^T, b)`; `Gemm` is the same with factors, which go into the weights.
"""

from __future__ import annotations

from dataclasses import replace

from compressors.sources.onnx.model import Node
from compressors.sources.onnx.patterns.draft import Draft


def join_linear(draft: Draft) -> None:
    """Replaces products with weights by linear layers, and takes in the biases that are added after them."""
    transposed: dict[str, str] = {}
    for node in list(draft.nodes.values()):
        if node.inputs and node.inputs[0] in draft.tensors:
            continue
        if node.op == "MatMul":
            weight = _weight(draft, node.inputs[1], transposed)
            if weight is not None:
                draft.put(node, replace(node, op=".Linear", inputs=(node.inputs[0], weight), attributes={}))
        elif node.op == "Gemm":
            _gemm(draft, node, transposed)
    for node in list(draft.nodes.values()):
        if node.op == ".Linear" and len(node.inputs) == 2:
            _add_bias(draft, node)


def _weight(draft: Draft, name: str, transposed: dict[str, str]) -> str | None:
    """Returns the name of the stored weight (outputs, inputs) behind the second operand of a product."""
    turn = draft.maker(name, "Transpose")
    if turn is not None and turn.inputs[0] in draft.tensors:
        stored = draft.tensors[turn.inputs[0]]
        if stored.dim() == 2 and tuple(turn.attributes.get("perm") or (1, 0)) == (1, 0):
            return turn.inputs[0]
    tensor = draft.tensors.get(name)
    if tensor is None or tensor.dim() != 2 or not tensor.is_floating_point():
        return None
    return _turned(draft, name, transposed)


def _turned(draft: Draft, name: str, transposed: dict[str, str]) -> str:
    """Stores the transpose of a weight, under its own name where nobody else reads it."""
    if name not in transposed:
        value = draft.tensors[name].t().contiguous()
        alone = all(reader.op == "MatMul" and reader.inputs[1] == name for reader in draft.readers(name))
        if alone and not draft.shown(name) and len(draft.readers(name)) == 1:
            draft.tensors[name] = value
            transposed[name] = name
        else:
            transposed[name] = draft.store(name, value)
    return transposed[name]


def _gemm(draft: Draft, node: Node, transposed: dict[str, str]) -> None:
    weight = draft.tensors.get(node.inputs[1])
    if weight is None or weight.dim() != 2 or not weight.is_floating_point() or node.attributes.get("transA"):
        return
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    bias = _gemm_bias(draft, node, weight.shape[0 if node.attributes.get("transB") else 1], beta)
    if bias is None:
        return
    name = node.inputs[1] if node.attributes.get("transB") else _turned(draft, node.inputs[1], transposed)
    if alpha != 1:
        name = draft.store(name, draft.tensors[name] * alpha)
    inputs = (node.inputs[0], name, bias) if bias else (node.inputs[0], name)
    draft.put(node, replace(node, op=".Linear", inputs=inputs, attributes={}))


def _gemm_bias(draft: Draft, node: Node, outputs: int, beta: float) -> str | None:
    """Returns the name of a Gemm's bias as a vector, empty without one, None where it is no stored vector."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return ""
    bias = draft.tensors.get(node.inputs[2])
    if bias is None or bias.numel() not in {1, outputs} or any(size != 1 for size in bias.shape[:-1]):
        return None
    if tuple(bias.shape) == (outputs,) and beta == 1:
        return node.inputs[2]
    return draft.store(node.inputs[2], (bias.reshape(-1) * beta).expand(outputs).contiguous())


def _add_bias(draft: Draft, node: Node) -> None:
    """Takes an addition of one value per output into the layer."""
    add = draft.reader(node.outputs[0], "Add")
    name = None if add is None else draft.other(add, node.outputs[0])
    if add is None or name is None:
        return
    bias, outputs = draft.tensors.get(name), draft.tensors[node.inputs[1]].shape[0]
    if bias is None or bias.numel() != outputs or bias.dim() == 0 or bias.shape[-1] != outputs:
        return
    # A bias of more dimensions than the product would give the result more dimensions; the product has at least two.
    if bias.dim() > 2:
        return
    if bias.dim() > 1:
        name = draft.store(name, bias.reshape(-1).contiguous())
    draft.put(add, replace(node, inputs=(*node.inputs, name), outputs=add.outputs))
