"""What an audit tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Finding:
    """What one audited run left behind; the harness's own share is not taken off yet."""

    native: float
    blocks: float
    fds: float
    threads: float
    children: float
    shared: float
    garbage_blocks: float
    garbage_native: float
    types: dict[str, int]
