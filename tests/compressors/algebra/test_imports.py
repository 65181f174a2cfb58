import ast
from pathlib import Path

import pytest

from compressors import algebra

ROOT = Path(algebra.__file__).parent


@pytest.mark.parametrize("file", sorted(ROOT.glob("*.py")), ids=lambda file: file.name)
def test_algebra_knows_no_graphs(file):
    tree = ast.parse(file.read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not any(module.startswith("torch.fx") for module in modules)
    ours = {module for module in modules if module.startswith("compressors")}
    assert all(module.startswith("compressors.algebra") for module in ours)
    taken = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "torch" for a in n.names}
    assert "fx" not in taken
