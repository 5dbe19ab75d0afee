"""Imports go one way, by full name, and files stay small enough to be read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW = {
    "schema": set(),
    "config": {"schema"},
    "publishers": {"schema"},
    "client": {"schema"},
    "gateway": {"schema", "config"},
    "cli": {"schema", "config", "publishers", "client", "gateway"},
}
"""Which other folders each may import."""
MAX_LINES = 400
TESTS_MAY_IMPORT = set(BELOW) | {"tests"}

MODULES = sorted(path for folder in BELOW for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of whatever a module imports, however deep inside it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield node.lineno, name.name
            case ast.ImportFrom(module=module, names=names, level=level):
                start = "." * level + (module or "")
                for name in names:
                    yield node.lineno, f"{start}.{name.name}"


def wrong_imports(path: Path, folder: str) -> Iterator[str]:
    allowed = BELOW[folder] | {folder}
    for line, name in imports(path):
        first, *rest = name.split(".")
        where = f"{path.name}:{line} imports {name}"
        if first == "":
            yield f"{where}: relative"
        elif first in TESTS_MAY_IMPORT:
            yield f"{where}: a bare name collides with other packages"
        elif first == "jarvis_mesh" and rest[0] not in allowed:
            yield f"{where}: {folder} may import {', '.join(sorted(allowed))} alone"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way_and_by_full_name(path: Path) -> None:
    assert not list(wrong_imports(path, path.relative_to(ROOT).parts[0]))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_why_it_exists_and_is_no_longer_than_a_reader_bears(path: Path) -> None:
    text = path.read_text("utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module opens with a docstring"
    assert len(text.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("folder", BELOW)
def test_a_front_door_re_exports_and_does_nothing_else(folder: str) -> None:
    path = ROOT / folder / "__init__.py"
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body:
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert is_all or is_docstring or isinstance(node, ast.ImportFrom), ast.unparse(node)


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("schema", "from jarvis_mesh.config.log import STREAM"),
        ("client", "import jarvis_mesh.gateway.app"),
        ("gateway", "from jarvis_mesh import cli"),
        ("publishers", "def f():\n    from jarvis_mesh.client import Mesh"),
        ("cli", "from schema import errors"),
        ("cli", "from . import up"),
    ],
)
def test_an_arrow_the_wrong_way_is_noticed(folder: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert list(wrong_imports(path, folder))
