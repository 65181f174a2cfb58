"""From an exported program to an editable graph.

Cases, in the order in which a node is looked at:
1. A node that depends on weights only is computed now (weight standardisation, position tables, ...).
2. Nodes without effect in eval mode go: dropout, detach, assertions, copies, full slices.
3. In-place operators become functional ones; later readers of the overwritten tensor read the result. Where views alias
   the overwritten memory, torch's own functionalisation does it first.
4. Operators in the table of `compressors.modules` become modules, named after their weights, or after the module that
   they ran in.
5. Everything else stays a function; weights that it takes are read with `get_attr`.
6. A batch size that the tracer wrote into the graph as a number becomes the size of the input again.
7. What models write out by hand (SiLU, GELU, a linear on flattened tokens) is put together again: `patterns`.

The result is compared with the program before it is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.export import ExportedProgram

from compressors.errors import UnsupportedModelError, reason
from compressors.graph import Graph
from compressors.lift.edges import Edges, input_specs, kept_names, output_specs
from compressors.lift.patterns import recognise
from compressors.lift.verify import verify
from compressors.lift.walk import AliasedWriteError, Walk

__all__ = ["Edges", "lift"]


def lift(
    program: ExportedProgram,
    name: str,
    sample_shapes: Sequence[tuple[int, ...]] | Mapping[str, tuple[int, ...]] | None = None,
    edges: Edges | None = None,
) -> Graph:
    """Returns the program as an editable graph that computes the same, for any batch size.

    Node and module names depend on the program only, so that a plan made on one lift fits every other.

    Args:
        program: Exported in eval mode.
        name: What the user calls the model.
        sample_shapes: Per-sample shape of each input, in order or by name (then of any); needed only where the program
            left more than the batch open.
        edges: What the caller knows about inputs and outputs beyond the program.

    Raises:
        ModelError: The program is in training mode, changes its own buffers, or does not take the sample shapes.
        UnsupportedModelError: Something in it cannot be lifted, or its batch size is fixed.
        SurgeryError: The lifted graph disagrees with the program.
    """
    try:
        module = Walk(program).run()
    except AliasedWriteError:
        program = _functional(program)
        module = Walk(program).run()
    edges = edges or Edges()
    inputs = input_specs(program, sample_shapes, edges.ranges)
    outputs = output_specs(module, inputs, kept_names(program, edges))
    recognise(module, inputs)
    graph = Graph(module, inputs, outputs, name)
    verify(program, graph)
    return graph


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Returns the program without operators that write into their inputs."""
    try:
        return program.run_decompositions({})  # type: ignore[no-any-return]
    except Exception as exc:  # torch raises whatever an operator leads it to
        raise UnsupportedModelError(
            f"the model writes into tensors that others share, and cannot be freed of that: {reason(exc)}"
        ) from exc
