"""Gates that training moves from an activation to a line (Layer Folding, 2021; LayerCollapse, 2023)."""

from compressors.gates.decide import at_least, near_one, rounded
from compressors.gates.gate import Gate
from compressors.gates.insert import amounts, gate_lines, gate_name, insert_gates, remove_gates
from compressors.gates.penalty import collapse_penalty, folding_penalty, saving_weights
from compressors.gates.regulariser import GateRecipe, GateRegulariser

__all__ = [
    "Gate",
    "GateRecipe",
    "GateRegulariser",
    "amounts",
    "at_least",
    "collapse_penalty",
    "folding_penalty",
    "gate_lines",
    "gate_name",
    "insert_gates",
    "near_one",
    "remove_gates",
    "rounded",
    "saving_weights",
]
