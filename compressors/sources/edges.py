"""What a model from a library is called with: its own inputs, in the shapes that the user asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compressors.errors import OptionError
from compressors.graph import TensorSpec
from compressors.sources.source import ModelSource


def shaped(specs: Sequence[TensorSpec], source: ModelSource, main: str) -> tuple[TensorSpec, ...]:
    """Returns the inputs with the user's shapes in place of the config's.

    Args:
        specs: Inputs in the config's shapes.
        source: `input_shapes` holds shapes by name; `sample_shape` is that of the main input.
        main: Name of the input that `sample_shape` is for; inputs of the same shape that are not named follow it (ids
            and their mask).

    Raises:
        OptionError: A name is not an input, or a shape has another number of dimensions.
    """
    given = dict(source.input_shapes)
    default = next(spec.shape for spec in specs if spec.name == main)
    asked = source.sample_shape or given.get(main)
    if asked is not None:
        given.update({spec.name: asked for spec in specs if spec.shape == default and spec.name not in given})
    unknown = [name for name in given if name not in {spec.name for spec in specs}]
    if unknown:
        known = ", ".join(spec.name for spec in specs)
        raise OptionError("source.input_shapes", f"the model has no input {unknown[0]!r}; it takes {known}")
    for spec in specs:
        shape = given.get(spec.name, spec.shape)
        if len(shape) != len(spec.shape) or any(size < 1 for size in shape):
            raise OptionError(
                "source.input_shapes", f"input {spec.name!r} has a shape such as {spec.shape}, got {shape}"
            )
    return tuple(replace(spec, shape=tuple(given.get(spec.name, spec.shape))) for spec in specs)
