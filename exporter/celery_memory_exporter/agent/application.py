"""What is the application's: its source files and its modules, wherever they are installed.

The application is what defines the tasks. So it is all that is neither the standard library's, nor
an installed package's, nor ours; and of the installed packages those that define a task, that the
app is named after, that ``-A``, ``include`` or ``imports`` name, or that a person adds. In most
images the application is installed like any library.

Whoever follows lines, reads where memory was allocated, or walks through containers asks here. The
answers rest on names and paths alone: no module is imported and no file is opened.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from celery_memory_exporter.agent.interruptions import let_pass

#: Answers are kept per file. Generated code may have a name of its own each time.
MAX_FILES = 4_096
PACKAGES = frozenset({"site-packages", "dist-packages"})
#: What code that was never in a file may call itself; an application's own generated code does,
#: too.
GENERATED = "<string>"

#: This file is in ``agent/``.
_PACKAGE = str(Path(os.path.abspath(__file__)).parents[1]) + os.sep
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
OURS = __name__.partition(".")[0]
#: Who defines tasks in every worker, and what turns the agent on. (Our demo is an application.)
NOBODYS = frozenset({"", "celery", f"{OURS}.autoload"})


class _Installed:
    """The installed packages that are the application's, of this process."""

    names: frozenset[str] = frozenset()


def packages_of(app: Any, arguments: Sequence[str], more: Iterable[str] = ()) -> frozenset[str]:
    """Names of packages, and of modules in none, that define the app's tasks, or that it is made of
    by its settings and the command's ``arguments``; and ``more``. Of a namespace package, which
    many may have a part of, it is the part."""
    modules = [type(task).__module__ for task in app.tasks.values()]
    for names in (app.conf.include, app.conf.imports, app.main, *_apps_of(arguments)):
        modules += [names] if isinstance(names, str) else names or ()
    found = {_package_of(name.partition(":")[0]) for name in modules}
    return frozenset(found - NOBODYS) | frozenset(more)


def _apps_of(arguments: Sequence[str]) -> Iterator[str]:
    """What ``-A`` names: ``-A shop``, ``-Ashop``, ``--app shop`` or ``--app=shop``."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument in ("-A", "--app"):
            yield following
        elif argument.startswith("--app="):
            yield argument.removeprefix("--app=")
        elif argument.startswith("-A"):
            yield argument.removeprefix("-A")


def _package_of(module: str) -> str:
    """The outermost package that has files of its own; nothing where none is loaded."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str) and name != OURS:
            return name
    return ""


def declare(packages: frozenset[str]) -> None:
    """Tells which installed packages are the application's, before anything of it is looked at."""
    _Installed.names = packages
    is_application.cache_clear()


@lru_cache(maxsize=MAX_FILES)
def is_own(filename: str) -> bool:
    """Whether the file, as a code object names it, is this package's, and no part of its demo
    application."""
    if filename.startswith("<"):
        return False
    path = absolute(filename)
    return path.startswith(_PACKAGE) and not path.startswith(_DEMO)


@lru_cache(maxsize=MAX_FILES)
def is_application(filename: str) -> bool:
    """Whether the file, as a code object names it, is the application's.

    ``<frozen …>`` and the like are not; ``<string>`` is, for want of a better place: prefer other
    lines to it.
    """
    if filename.startswith("<"):
        return filename == GENERATED
    path = absolute(filename)
    if path.startswith(_DEMO):
        return True
    if is_own(filename):
        return False
    name = installed_as(path)
    if name is not None:
        return any(name == each or name.startswith(f"{each}.") for each in _Installed.names)
    return not path.startswith(_STANDARD_LIBRARY)


def installed_as(path: str) -> str | None:
    """The name of the module in this file, in a folder of installed packages; ``None`` for a file
    anywhere else."""
    parts = path.split(os.sep)
    if PACKAGES.isdisjoint(parts):
        return None
    within = max(at for at, part in enumerate(parts) if part in PACKAGES) + 1
    return ".".join(parts[within:]).removesuffix(".py")


def absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError as error:  # the current directory was removed under us
        let_pass(error)
        return os.path.normpath(path)
