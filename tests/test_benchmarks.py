"""Benchmarks run by hand only. This keeps their names of the package right, those in strings and functions too."""

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parent / "benchmarks").glob("*.py"))


def imported_names(source: str) -> set[tuple[str, str]]:
    """(module, name) of every import from this package, also in the programs that a benchmark holds as strings."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("doubleunet_bs"):
            names |= {(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\nfrom doubleunet_bs" in node.value:
            names |= imported_names(node.value)
    return names


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_names_of_the_package_exist(path, tensorflow):
    for module, name in sorted(imported_names(path.read_text(encoding="utf-8"))):
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.import_module(f"{module}.{name}"), f"{module}.{name}"
