"""Which source files are the application's, and what a line of them is called.

Two readers of code lines need the same answers: the one that follows lines (``lines``) and the one
that reads where memory was allocated (``allocations``). The answers rest on the path alone: no
module is imported and no file is opened.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

from celery_memory_exporter.agent.interruptions import let_pass

#: Answers are kept per file. Generated code may have a name of its own each time.
MAX_FILES = 4_096
PACKAGES = frozenset({"site-packages", "dist-packages"})
#: What code that was never in a file may call itself; an application's own generated code does,
#: too.
GENERATED = "<string>"

#: This file is in ``agent/audit/``.
_PACKAGE = str(Path(os.path.abspath(__file__)).parents[2]) + os.sep
#: Ships with this package to be watched like any user's application.
_DEMO = os.path.join(_PACKAGE, "demo") + os.sep


def _directories() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib")
    found = {sysconfig.get_path(name) for name in names} | {
        os.path.dirname(os.path.abspath(os.__file__))
    }
    # A virtual environment has the paths of its base interpreter under other names.
    found |= {os.path.realpath(path) for path in found}
    return tuple(path + os.sep for path in found)


_STANDARD_LIBRARY = _directories()


@lru_cache(maxsize=MAX_FILES)
def is_own(filename: str) -> bool:
    """Whether the file, as a code object names it, is this package's, and no part of its demo
    application."""
    if filename.startswith("<"):
        return False
    path = _absolute(filename)
    return path.startswith(_PACKAGE) and not path.startswith(_DEMO)


@lru_cache(maxsize=MAX_FILES)
def is_application(filename: str) -> bool:
    """Whether the file, as a code object names it, is neither the standard library's, nor an
    installed package's, nor ours.

    ``<frozen …>`` and the like are not; ``<string>`` is, for want of a better place: prefer other
    lines to it.
    """
    if filename.startswith("<"):
        return filename == GENERATED
    path = _absolute(filename)
    if path.startswith(_DEMO):
        return True
    if is_own(filename) or not PACKAGES.isdisjoint(path.split(os.sep)):
        return False
    return not path.startswith(_STANDARD_LIBRARY)


def site_of(filename: str, lineno: int) -> str:
    """``shop/cache.py:42``: relative to the longest entry of ``sys.path`` that holds it, else its
    last two parts."""
    return (
        f"{_name_of(filename, tuple(entry for entry in sys.path if type(entry) is str))}:{lineno}"
    )


@lru_cache(maxsize=MAX_FILES)
def _name_of(filename: str, search_path: tuple[str, ...]) -> str:
    if filename.startswith("<"):
        return filename
    path = _absolute(filename)
    # An empty entry is the current directory. The root holds everything and would tell the whole
    # path.
    roots = [
        root
        for root in (_absolute(entry) + os.sep for entry in search_path)
        if len(root) > 2 and path.startswith(root)
    ]
    if roots:
        return path[len(max(roots, key=len)) :]
    return os.sep.join(path.split(os.sep)[-2:]).lstrip(os.sep)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError as error:  # the current directory was removed under us
        let_pass(error)
        return os.path.normpath(path)
