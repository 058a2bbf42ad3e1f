"""What the main process counted of task messages since all of its counts were last written.

In shared memory, so that nothing of it is lost when the process is killed. There are two halves: as
long as all counts are being written, events go on into the other half. Each half has a number, and
whoever has written all counts says from which half on events are not among them.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterator
from typing import Any

#: Number of the half, bytes used behind this head.
_head = struct.Struct("<qq")
_used = struct.Struct("<q")
_length = struct.Struct("<H")
MAX_EVENT_BYTES = 2**16 - 1
#: The oldest format of ``marshal``: the next worker may have another Python.
MARSHAL_VERSION = 2


class Journal:
    """Its user keeps threads apart."""

    def __init__(self, memory: memoryview) -> None:
        """``memory`` is all zeros, or what another journal left."""
        middle = len(memory) // 2
        self._halves = memory[:middle], memory[middle:]
        self._number: int = max(_head.unpack_from(half)[0] for half in self._halves)
        self._half = self._halves[self._number % 2]
        self._end = 0

    def add(self, event: tuple[Any, ...]) -> bool:
        """Whether there was room for the event."""
        data = marshal.dumps(event, MARSHAL_VERSION)
        begin = _head.size + self._end
        end = begin + _length.size + len(data)
        if end > len(self._half) or len(data) > MAX_EVENT_BYTES:
            return False
        _length.pack_into(self._half, begin, len(data))
        self._half[begin + _length.size : end] = data
        # Last: an event that is half written is none.
        self._end = end - _head.size
        _used.pack_into(self._half, _used.size, self._end)
        return True

    def turn(self) -> int:
        """From now on events go into the other half, whose number this is."""
        self._number += 1
        self._half = self._halves[self._number % 2]
        self._end = 0
        _used.pack_into(self._half, _used.size, 0)
        _used.pack_into(self._half, 0, self._number)
        return self._number

    def events(self, number: int) -> Iterator[tuple[Any, ...]]:
        """Of this half and of later ones, the oldest first."""
        for half in sorted(self._halves, key=lambda half: _head.unpack_from(half)[0]):
            told, used = _head.unpack_from(half)
            if told < number:
                continue
            at, end = _head.size, _head.size + min(used, len(half) - _head.size)
            while at < end:
                first = at + _length.size
                at = first + _length.unpack_from(half, at)[0]
                yield marshal.loads(half[first:at])
