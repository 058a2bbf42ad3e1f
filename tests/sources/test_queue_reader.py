"""What is asked of a broker, and what is made of its answers. Redis and RabbitMQ are in the
integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import TRANSPORT_ALIASES, memory

from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.sources.queue_reader import Answer, QueueReader, is_possible
from tests.sources.doubles import send


@contextmanager
def reading(url: str = "memory://") -> Iterator[QueueReader]:
    reader = QueueReader(Broker(url=url), heads=True)
    yield reader
    reader.close()


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "\udcff"])
def test_no_broker_can_have_such_a_queue(name: str) -> None:
    assert not is_possible(name)


@given(st.text(min_size=1, max_size=63))
def test_a_name_of_any_letters_is_possible_while_it_is_short(name: str) -> None:
    assert is_possible(name)


def test_messages_are_counted_and_a_queue_that_is_not_there_is_empty_and_not_made() -> None:
    send("q")
    send("q")
    with reading() as reader:
        answers = reader.read(["q", "none"])
    assert answers.queues == {"q": Answer({0: 2}), "none": Answer({0: 0})}
    assert answers.trouble is None
    assert "none" not in memory.Channel.queues


def test_a_name_that_no_queue_can_have_is_not_asked_for() -> None:
    with reading() as reader:
        assert reader.read(["", "q"]).queues.keys() == {"q"}


def test_a_queue_that_cannot_be_told_of_hides_only_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "makesqueues", "tests.sources.doubles:MakesQueues")
    send("q")
    with reading("makesqueues://") as reader:
        answers = reader.read(["none", "q"])
    assert answers.queues == {"q": Answer({0: 1})}
    assert str(answers.trouble) == "no none in SQS"
    assert "none" not in memory.Channel.queues


def test_a_broker_that_cannot_be_reached_is_an_error_at_once() -> None:
    with pytest.raises(KeyError, match="unheard-of"):
        QueueReader(Broker(url="unheard-of://"), heads=True)
