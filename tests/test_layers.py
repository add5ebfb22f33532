"""The road has one direction: a module imports only from rooms above its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "xmodel2"
ROOMS = ("recipe", "tokenizer", "data", "model", "train", "search", "eval", "release", "reproduction")
MODULES = [path for room in ROOMS for path in sorted((PACKAGE / room).rglob("*.py"))]


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms (and top-level modules) of the package that a file imports from, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("xmodel2.")}
    return found


def test_the_rooms_are_these() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {*ROOMS, "commands"}  # the commands, like cli.py, know all rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_up_the_road_only(path: Path) -> None:
    above = ROOMS[: ROOMS.index(path.relative_to(PACKAGE).parts[0]) + 1]
    assert imported_rooms(path) <= {*above, "cores", "errors", "files", "page", "plots"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_can_be_read_in_a_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
