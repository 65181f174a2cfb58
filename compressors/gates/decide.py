"""Which calls get gates, and which gates have become linear.

Amounts are those of `compressors.gates.amounts`, by node name in the order in which the calls run; so are the answers.
A gate that is not finite, which training has destroyed, is not linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, inf, isfinite

from compressors.analysis.segments import Site
from compressors.errors import OptionError
from compressors.graph import Graph


def at_least(amounts: Mapping[str, float], threshold: float = 0.9) -> tuple[str, ...]:
    """Returns the gates at `threshold` or above (Layer Folding on residual networks)."""
    return tuple(name for name, amount in amounts.items() if isfinite(amount) and amount >= threshold)


def rounded(amounts: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the gates that round to 1: above one half (Layer Folding on VGG)."""
    return tuple(name for name, amount in amounts.items() if isfinite(amount) and amount > 0.5)


def near_one(amounts: Mapping[str, float], tolerance: float = 0.05) -> tuple[str, ...]:
    """Returns the gates less than `tolerance` from 1 on either side (LayerCollapse)."""
    return tuple(name for name, amount in amounts.items() if abs(amount - 1) < tolerance)


def most_linear(amounts: Mapping[str, float], count: int) -> tuple[str, ...]:
    """Returns the `count` highest gates, in the order of `amounts`; of equals the earlier ones."""
    finite = {name: amount if isfinite(amount) else -inf for name, amount in amounts.items()}
    best = set(sorted(finite, key=lambda name: -finite[name])[:count])
    return tuple(name for name in amounts if name in best)


def last_fraction(sites: Sequence[Site], fraction: float) -> tuple[str, ...]:
    """Returns the last `fraction` of the sites, rounded up, in order.

    Args:
        sites: In the order in which they run.
        fraction: In [0, 1].

    Raises:
        OptionError: The fraction is out of range.
    """
    first = len(sites) - ceil(_checked(fraction) * len(sites))
    return tuple(site.node for site in sites[first:])


def last_modules(graph: Graph, sites: Sequence[Site], fraction: float) -> tuple[str, ...]:
    """Returns the sites whose modules are among the last `fraction` of all modules, as published for LayerCollapse.

    Args:
        graph: Where the sites are.
        sites: In the order in which they run.
        fraction: In [0, 1], of the modules, containers among them; rounded down.

    Raises:
        OptionError: The fraction is out of range.
    """
    names = [name for name, _ in graph.module.named_modules()]
    inside = set(names[len(names) - int(_checked(fraction) * len(names)) :])
    return tuple(site.node for site in sites if site.target in inside)


def _checked(fraction: float) -> float:
    if not 0 <= fraction <= 1:
        raise OptionError("fraction", f"a fraction of the sites lies between 0 and 1; got {fraction}")
    return fraction
