"""Structure of `streams/`: no circle of imports of any kind, few parameters."""

from __future__ import annotations

import ast
from pathlib import Path

STREAMS = Path(__file__).parents[1] / "streams"
MAX_PARAMETERS = 8
TREES = {
    ".".join(("streams", *path.relative_to(STREAMS).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(STREAMS.rglob("*.py"))
}


def imported(tree: ast.AST) -> set[str]:
    """Modules of `streams/` that a module imports anywhere: at its top, in functions, for types."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.removeprefix("tristream.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = (node.module or "").removeprefix("tristream.").replace("tristream", "")
            for alias in node.names:
                inside = f"{source}.{alias.name}".strip(".")
                modules.add(inside if inside in TREES else source)
    return modules & TREES.keys()


def test_no_module_of_streams_imports_itself_in_a_circle_not_even_late_or_for_types():
    arrows = {module: imported(tree) - {module} for module, tree in TREES.items()}
    assert "streams.video" in arrows["streams.stream"], "type-only imports count"
    assert "streams.torch_backend" in arrows["streams.compute"], "late imports count"
    while arrows:
        leaves = {module for module, targets in arrows.items() if not targets & arrows.keys()}
        assert leaves, f"a circle among {sorted(arrows)}"
        arrows = {module: targets for module, targets in arrows.items() if module not in leaves}


def test_flow_estimators_know_no_trained_stream():
    assert imported(TREES["streams.flow_estimators"]) == {"streams.backend"}


def test_no_function_has_more_than_eight_parameters():
    long = {}
    for module, tree in TREES.items():
        for parent in ast.walk(tree):
            for node in ast.iter_child_nodes(parent):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                n = sum(argument.arg not in ("self", "cls") for argument in arguments)
                name = f"{getattr(parent, 'name', module)}.{node.name}"
                if n > MAX_PARAMETERS:
                    long[f"{module}: {name}"] = n
    assert long == {}
