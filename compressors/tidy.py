"""Cleaning up a graph after it has been edited."""

from __future__ import annotations

from torch import fx


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """Deletes what nothing reads, checks the graph and generates its code again; changes and returns `module`.

    Whatever is not read goes, even an operator that torch calls impure: attention counts as random because it could
    drop weights, which it does not in eval mode.
    """
    module.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
    return module
