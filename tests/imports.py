"""What a file of Python imports."""

import ast
from pathlib import Path


def imports(file: Path) -> set[str]:
    """Dotted names of what a file imports, also inside functions, but not for type checking alone.

    A relative import begins with its dots.
    """
    names = set()
    pending = [ast.parse(file.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
        pending += ast.iter_child_nodes(node)
    return names
