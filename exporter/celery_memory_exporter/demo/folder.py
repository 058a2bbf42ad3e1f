"""kombu's filesystem transport, with messages that appear whole.

kombu creates a message's file and then fills it; a reader that looks in between finds an empty file
and its worker dies of a ``JSONDecodeError`` (seen in one of three 30 s runs with kombu 5.7). Here
the file is written under another name and renamed.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

#: The scheme of this transport's URL, once ``register`` was called.
SCHEME = "folder"


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu has no type information
    """Writes each message at once."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        path = Path(self.data_folder_out) / f"{time.monotonic_ns()}_{uuid.uuid4()}.{queue}.msg"
        partial = path.with_name(path.name + ".part")
        partial.write_text(dumps(payload), encoding="utf-8")
        partial.rename(path)


class Transport(filesystem.Transport):  # type: ignore[misc]  # kombu has no type information
    """The transport of the demo."""

    Channel = Channel


def register() -> None:
    """Makes ``folder://`` a broker URL in this process."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
