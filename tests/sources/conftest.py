"""kombu's broker in memory, for what talks to a broker without needing a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kombu.transport import memory


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    """It is one for the whole process."""
    yield
    memory.Channel.queues.clear()
    memory.Transport.global_state.clear()
