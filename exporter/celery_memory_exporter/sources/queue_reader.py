"""Asks a broker about its queues: one round trip for all of them in Redis, one for each elsewhere.

* One connection is kept for as long as it works.
* Nothing is changed or made: a queue that is not there is empty.
* Keys in Redis are the ones that kombu's channel makes, so its options (``sep``,
  ``priority_steps``, ``global_keyprefix``) hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kombu.transport import virtual

from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.sources.broker import connect

#: AMQP's limit; no broker has a queue with a longer name, or with one that is no text.
MAX_QUEUE_NAME_BYTES = 255
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Answer:
    """What a broker says of one queue."""

    #: Messages by priority step; one step where the broker does not tell them apart.
    lengths: dict[int, int]
    consumers: int | None = None
    #: The next message of each step, where asked for.
    heads: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers by queue. ``trouble`` is the first error because of which one is missing or
    incomplete."""

    queues: dict[str, Answer]
    trouble: Exception | None


class QueueReader:
    """Connects when it is made, and raises what the transport raises."""

    def __init__(self, settings: Broker, *, heads: bool) -> None:
        self._heads = heads
        self._connection = connect(settings, settings.url or "")
        try:
            self._channel = self._connection.channel()
        except Exception:
            self._connection.release()
            raise

    def read(self, names: Iterable[str]) -> Answers:
        """Raises when the broker cannot be asked at all."""
        possible = [name for name in names if is_possible(name)]
        if self._connection.transport.driver_type == "redis":
            return self._read_redis(possible)
        return self._read_each(possible)

    def close(self) -> None:
        self._connection.release()

    # --- Redis -----------------------------------------------------------------------------------

    def _read_redis(self, names: list[str]) -> Answers:
        from redis import Redis

        steps = list(self._channel.priority_steps)
        # Not the channel's own client: it adds its prefix to some commands (LLEN) and not to others
        # (LINDEX).
        client = Redis(connection_pool=self._channel.client.connection_pool)
        pipeline = client.pipeline(transaction=False)
        pipeline.ping()
        for key in (self._key(name, step) for name in names for step in steps):
            pipeline.llen(key)
            if self._heads:
                pipeline.lindex(key, -1)  # kombu takes from this end
        results = iter(pipeline.execute(raise_on_error=False))
        ping = next(results)
        if isinstance(ping, Exception):
            raise ping
        answers, trouble = {}, None
        for name in names:
            lengths, heads = {}, {}
            for step in steps:
                lengths[step] = next(results)
                heads[step] = next(results) if self._heads else None
            errors = [
                each for each in (*lengths.values(), *heads.values()) if isinstance(each, Exception)
            ]
            trouble = trouble or next(iter(errors), None)
            if all(isinstance(each, int) for each in lengths.values()):
                answers[name] = Answer(
                    lengths,
                    heads={step: head for step, head in heads.items() if isinstance(head, bytes)},
                )
        return Answers(answers, trouble)

    def _key(self, name: str, step: int) -> str:
        return f"{self._channel.global_keyprefix}{self._channel._q_for_pri(name, step)}"

    # --- all others ------------------------------------------------------------------------------

    def _read_each(self, names: list[str]) -> Answers:
        answers, trouble = {}, None
        for name in names:
            try:
                answers[name] = (
                    self._virtual(name)
                    if isinstance(self._channel, virtual.Channel)
                    else self._declared(name)
                )
            except self._connection.connection_errors:
                raise
            except self._connection.channel_errors as error:
                # The broker has closed the channel, and py-amqp has opened it again.
                if int(getattr(error, "reply_code", None) or 0) == NOT_FOUND:
                    answers[name] = self._missing()
                else:
                    trouble = trouble or error
            except Exception as error:  # one queue that cannot be told of must not hide the others
                trouble = trouble or error
        return Answers(answers, trouble)

    def _declared(self, name: str) -> Answer:
        _, messages, consumers = self._channel.queue_declare(name, passive=True)
        return Answer({0: messages}, consumers=consumers if self._tells_consumers else None)

    def _virtual(self, name: str) -> Answer:
        """Not by a passive declaration: kombu's virtual one makes what it does not find."""
        if hasattr(self._channel, "_resolve_queue_url"):
            self._channel._resolve_queue_url(name)  # raises, where SQS' ``_size`` makes the queue
        return Answer({0: self._channel._size(name) if self._channel._has_queue(name) else 0})

    def _missing(self) -> Answer:
        return Answer({0: 0}, consumers=0 if self._tells_consumers else None)

    @property
    def _tells_consumers(self) -> bool:
        return bool(self._connection.transport.driver_type == "amqp")


def is_possible(name: str) -> bool:
    """Whether a broker can have such a queue at all; names come from the network, too."""
    try:
        return 0 < len(name.encode()) <= MAX_QUEUE_NAME_BYTES
    except UnicodeEncodeError:
        return False
