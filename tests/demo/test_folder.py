"""The demo's broker: a folder, in which messages appear whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from kombu import Connection

from celery_memory_exporter.demo import folder
from celery_memory_exporter.demo.shop import transport_options


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    for part in ("messages", "control"):
        (tmp_path / part).mkdir()
    folder.register()
    return tmp_path / "messages"


def test_a_message_is_renamed_into_place_and_comes_back(messages: Path) -> None:
    options = transport_options(messages.parent)
    with (
        Connection(f"{folder.SCHEME}://", transport_options=options) as connection,
        connection.SimpleQueue("q") as queue,
    ):
        queue.put({"order": 1})
        (file,) = messages.iterdir()
        assert file.name.endswith(".q.msg")
        message = queue.get(timeout=30)
        assert message.payload == {"order": 1}
        message.ack()
    assert list(messages.iterdir()) == []
