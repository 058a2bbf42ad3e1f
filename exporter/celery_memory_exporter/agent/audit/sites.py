"""What a line of source is called: by its path alone, no module is imported and no file is
opened."""

from __future__ import annotations

import os
import sys
from functools import lru_cache

from celery_memory_exporter.agent.application import MAX_FILES, absolute


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
    path = absolute(filename)
    # An empty entry is the current directory. The root holds everything and would tell the whole
    # path.
    roots = [
        root
        for root in (absolute(entry) + os.sep for entry in search_path)
        if len(root) > 2 and path.startswith(root)
    ]
    if roots:
        return path[len(max(roots, key=len)) :]
    return os.sep.join(path.split(os.sep)[-2:]).lstrip(os.sep)
