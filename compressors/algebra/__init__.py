"""The algebra of affine maps: convolutions and linears that can be composed, added and folded exactly, in float64."""

from compressors.algebra.affine import Affine, Refused, identity, of_module, rounding_bound, to_module
from compressors.algebra.compose import compose, compose_chain, compose_shift, regroup, split_groups
from compressors.algebra.exact import (
    Exactness,
    Merge,
    Policy,
    bias_map,
    chain_bias_map,
    chain_exactness,
    exactness,
    is_exact_at_every_size,
    merge,
    merge_chain,
    pad_chain_first,
    pad_first,
    ring_correction,
)
from compressors.algebra.norms import norm_scale, scale_inputs, scale_outputs
from compressors.algebra.parallel import add
from compressors.algebra.pools import average_pool

__all__ = [
    "Affine",
    "Exactness",
    "Merge",
    "Policy",
    "Refused",
    "add",
    "average_pool",
    "bias_map",
    "chain_bias_map",
    "chain_exactness",
    "compose",
    "compose_chain",
    "compose_shift",
    "exactness",
    "identity",
    "is_exact_at_every_size",
    "merge",
    "merge_chain",
    "norm_scale",
    "of_module",
    "pad_chain_first",
    "pad_first",
    "regroup",
    "ring_correction",
    "rounding_bound",
    "scale_inputs",
    "scale_outputs",
    "split_groups",
    "to_module",
]
