"""The rules of the house: which package may import which, no circle, nothing too long to be read.

Imports are read out of the source (``ast``), those within functions and for type checkers included.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "celery_memory_exporter"
HOUSE = ROOT / "exporter" / PACKAGE
#: The exporter's rooms: each imports itself and those further down.
ORDER = (
    {"__main__"},
    {"cli"},
    {"demo"},
    {"exporter"},
    {"web"},
    {"metrics", "sources"},
    {"diagnosis", "config"},
    {"fleet"},
    {"common"},
)
ROOMS = {
    room: set().union(*ORDER[floor + 1 :]) for floor in range(len(ORDER)) for room in ORDER[floor]
}
#: What runs in the worker is apart; the package itself tells its version.
ROOMS |= {"autoload": {"agent"}, "agent": {"common"}, "__init__": {"common"}}
#: Beside the standard library.
LIBRARIES = {"common": set(), "agent": {"celery", "kombu", "billiard", "objgraph"}}
#: What reads a clock or does I/O.
IO = {
    *("time", "os", "io", "socket", "selectors", "select", "ssl", "subprocess", "threading"),
    *("pathlib", "urllib", "http", "shutil", "tempfile", "asyncio", "logging"),
    *("psutil", "celery", "kombu", "redis"),
}
#: State needs a lock, which is no I/O.
ALLOWED = {("fleet", "threading"), ("diagnosis", "threading")}
MODULE_LINES, FUNCTION_LINES = 300, 40
FILES = sorted(HOUSE.rglob("*.py"))
#: What writes dashboards and rules is held to the same size.
SIZED = [*FILES, *(ROOT / "grafana").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")]


def module_of(file: Path) -> str:
    parts = file.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def room_of(module: str) -> str:
    """``celery_memory_exporter.fleet.limits`` -> ``fleet``."""
    return module.partition(".")[2].partition(".")[0] or "__init__"


@cache
def imports(module: str) -> frozenset[str]:
    """Modules that it names in imports; a module of ours as deep as it is one."""
    return frozenset(_imports(ast.parse(MODULES[module].read_text())))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name in MODULES and name != module}


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_lies_to_its_right(module: str) -> None:
    room = room_of(module)
    assert {room_of(name) for name in ours(module)} <= {room, *ROOMS[room]}


@pytest.mark.parametrize("room", LIBRARIES)
def test_common_and_the_agent_import_the_standard_library_and_celery_only(room: str) -> None:
    for module in (each for each in MODULES if room_of(each) == room):
        foreign = {name.partition(".")[0] for name in imports(module)} - {
            PACKAGE,
            *sys.stdlib_module_names,
        }
        assert foreign <= LIBRARIES[room], module


@pytest.mark.parametrize("room", ["fleet", "diagnosis"])
def test_the_pure_rooms_do_no_io_and_read_no_clock(room: str) -> None:
    for module in (each for each in MODULES if room_of(each) == room):
        names = {name.partition(".")[0] for name in imports(module)}
        assert {name for name in names & IO if (room, name) not in ALLOWED} == set(), module


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {module: ours(module) for module in MODULES}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"in a circle, or on the way to one: {sorted(left)}"


@pytest.mark.parametrize("file", SIZED, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_can_be_read_at_once(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= FUNCTION_LINES, node.name
