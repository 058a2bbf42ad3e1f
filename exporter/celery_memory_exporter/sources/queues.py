"""Reads the brokers' queues again and again, off the scrape path, and feeds the fleet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from celery_memory_exporter.config.settings import Broker, Queues
from celery_memory_exporter.fleet.facts import QueueReading
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.sources.broker import CONNECT_SECONDS, explain
from celery_memory_exporter.sources.poller import Attempt, Poller
from celery_memory_exporter.sources.queue_heads import Heads, Place
from celery_memory_exporter.sources.queue_reader import Answer, Answers, QueueReader

logger = logging.getLogger(__name__)

SOURCE = "queues"


class QueuePoller:
    """Feeds a fleet with one broker's queues, in a thread of its own."""

    def __init__(
        self,
        fleet: Fleet,
        settings: Broker,
        queues: Queues,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._with_heads = queues.oldest_task
        self._monotonic = monotonic
        self._now = now
        self._source = f"{SOURCE}/{settings.name}" if settings.name else SOURCE
        self._heads = Heads(fleet.sent_at)
        #: Priority steps that ever had something, by queue.
        self._used: dict[str, set[int]] = {}
        self._reader: QueueReader | None = None
        self._poller = Poller(
            self._source,
            self._step,
            self._tell,
            interval=queues.interval_seconds,
            patience=CONNECT_SECONDS,
            release=self._drop,
            monotonic=monotonic,
        )

    def start(self) -> None:
        self._fleet.apply_source(self._source, up=False)
        self._poller.start()

    def stop(self) -> None:
        self._poller.stop()

    def poll(self) -> None:
        """One reading of all queues. What cannot be read is absent."""
        self._poller.poll()

    def _step(self) -> None:
        readings: list[QueueReading] = []
        try:
            answers = self._ask(self._fleet.queue_names(self._settings.name, self._monotonic()))
            readings = self._readings(answers.queues)
        except Exception:
            self._drop()
            raise
        finally:
            self._fleet.apply_queues(self._settings.name, readings, self._monotonic())
        if answers.trouble is not None:
            raise answers.trouble

    def _tell(self, attempt: Attempt) -> None:
        self._fleet.apply_source(self._source, up=attempt.error is None, duration=attempt.seconds)
        if attempt.error is not None and not attempt.again:
            logger.warning(
                "queues cannot be read: %s; it is tried again every %.0f s",
                explain(attempt.error, self._settings.url or ""),
                self._poller.interval,
            )

    def _ask(self, names: list[str]) -> Answers:
        if self._reader is not None:
            try:
                return self._reader.read(names)
            # It may have died since the last poll, which says nothing about the broker.
            except Exception as error:
                logger.debug(
                    "a kept connection failed: %s", explain(error, self._settings.url or "")
                )
                self._drop()
        self._reader = QueueReader(self._settings, heads=self._with_heads)
        return self._reader.read(names)

    def _drop(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                reader.close()
            except Exception as error:  # what a transport raises when it closes what is broken
                logger.debug(
                    "a broken connection could not be closed: %s",
                    explain(error, self._settings.url or ""),
                )

    # --- answers -> readings ---------------------------------------------------------------------

    def _readings(self, answers: dict[str, Answer]) -> list[QueueReading]:
        bodies = {
            (name, step): body
            for name, answer in answers.items()
            for step, body in answer.heads.items()
        }
        ages = self._heads.ages(bodies, self._now(), self._monotonic())
        self._used = {
            name: self._used.get(name, set())
            | {step for step, length in answer.lengths.items() if length}
            for name, answer in answers.items()
        }
        return [self._reading(name, answer, ages) for name, answer in answers.items()]

    def _reading(self, name: str, answer: Answer, ages: dict[Place, float]) -> QueueReading:
        first = next(iter(answer.lengths), 0)
        known = [ages[name, step] for step in answer.lengths if (name, step) in ages]
        return QueueReading(
            name=name,
            length=sum(answer.lengths.values()),
            # Steps that nobody uses would make four series of each queue's one.
            by_priority={
                step: length
                for step, length in answer.lengths.items()
                if step == first or step in self._used[name]
            },
            consumers=answer.consumers,
            # Of every step, because a low priority may wait for ever.
            oldest_seconds=max(known, default=None),
        )
