"""Counts what becomes of task messages in the worker's main process, at the places where Celery
makes task events of it.

A worker without ``-E`` goes through the same places and sends nothing; so each figure means what
the event means, also for what no pool process can tell: revoked tasks, time limits, lost children.
Two hooks, both Celery's own: the ``Request`` class of each task, and the ``task_received`` signal.

Requests of threads and greenlets come here as they end, so counting takes a lock. No request is
kept.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from billiard.einfo import ExceptionWithTraceback
from celery.signals import task_received
from celery.utils.imports import symbol_by_name
from celery.utils.serialization import UnpickleableExceptionWrapper
from celery.worker import state

from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.interruptions import let_pass
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker.journal import Journal
from celery_memory_exporter.common.message_times import sent_at
from celery_memory_exporter.common.report import Running, Traffic
from celery_memory_exporter.common.traffic import Counts, exception_class, running_by_type

#: A set that a thread changes while it is copied is copied again.
COPY_TRIES = 5
STARTED, SUCCEEDED, FAILED = "task-started", "task-succeeded", "task-failed"
#: Its kind, names of task and queue; of a success the runtime, of a failure the exception; and the
#: seconds that the task waited.
Event: TypeAlias = "tuple[str, str, str, float | str | None, float | None]"


class RequestCounter:
    """Counts what becomes of task messages, for one worker."""

    def __init__(self, guard: Guard, settings: Settings, journal: Journal | None = None) -> None:
        self.guard = guard
        self._journal = journal
        #: Called when the journal has no more room.
        self.on_full: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._counts = Counts(
            max_tasks=settings.max_tasks,
            runtime=settings.runtime_buckets,
            queue_wait=settings.queue_wait_buckets,
        )
        self._queues: list[str] = []
        self._routes: dict[tuple[str, str], str] = {}
        self._tags: dict[str, str] = {}
        self._classes: dict[type, type] = {}
        task_received.connect(self.on_received, weak=False)

    def stop(self) -> None:
        task_received.disconnect(self.on_received)

    # --- hooks -----------------------------------------------------------------------------------

    def count_tasks(self, tasks: dict[str, Any]) -> bool:
        """Gives each task a ``Request`` class that counts; whether there was one without."""
        news = [self._count_task(task) for task in list(tasks.values())]
        return any(news)

    @guarded
    def _count_task(self, task: Any) -> bool:
        base = symbol_by_name(task.Request)
        if getattr(base, "memory_counter", None) is self:
            return False
        if base not in self._classes:
            self._classes[base] = counted(base, self)
        task.Request = self._classes[base]
        return True

    @guarded
    def follow(self, consumer: Any) -> None:
        """Which queues are consumed: at each (re)start of the consumer, and before each report,
        since queues come and go."""
        task_consumer = consumer.task_consumer
        queues = list(task_consumer.queues) if task_consumer is not None else []
        self._queues = [queue.name for queue in queues]
        self._routes = {
            (queue.exchange.name if queue.exchange else "", queue.routing_key or ""): queue.name
            for queue in queues
            if queue.name
        }
        self._tags = {tag: name for name, tag in getattr(task_consumer, "_active_tags", {}).items()}

    @guarded
    def on_received(self, request: Any, **_: Any) -> None:
        self.count("task-received", request, {})

    def count(self, event: str, request: Any, fields: dict[str, Any]) -> None:
        wait = waited(request) if event == STARTED else None
        runtime = fields.get("runtime")
        told = float(runtime) if isinstance(runtime, (int, float)) else None
        self._note((event, request.name, self.queue_of(request), told, wait))

    def count_failure(self, request: Any, exception: str) -> None:
        self._note((FAILED, request.name, self.queue_of(request), exception, None))

    def _note(self, event: Event) -> None:
        with self._lock:
            note(self._counts, event)
            full = self._journal is not None and not self._journal.add(event)
        if full:
            self.on_full()

    # --- what is told ----------------------------------------------------------------------------

    def traffic(self) -> list[Traffic]:
        with self._lock:
            return self._counts.reports()

    def turn(self) -> tuple[list[Traffic], int]:
        """All that was counted so far, and which half of the journal has what comes next."""
        with self._lock:
            return self._counts.reports(), self._journal.turn() if self._journal else 0

    @property
    def folded(self) -> int:
        return self._counts.folded

    def queues(self) -> list[str]:
        return sorted(self._queues)

    def running(self) -> list[Running]:
        """Task types that run now, those whose oldest runs the longest first."""
        now = time.time()
        return running_by_type(
            (each.name, now - (each.time_start or now)) for each in copied(state.active_requests)
        )

    @staticmethod
    def active() -> int:
        return len(state.active_requests)

    @staticmethod
    def prefetched() -> int:
        """Received and not started: those reserved, and with Celery 5.7 and later those with an
        eta."""
        waiting = {request.id for request in copied(state.reserved_requests)}
        waiting |= {request.id for request in copied(getattr(state, "scheduled_requests", ()))}
        return len(waiting - {request.id for request in copied(state.active_requests)})

    def queue_of(self, request: Any) -> str:
        """The queue that the message came by. Of a topic exchange only the consumer's tag tells it
        (AMQP)."""
        message = getattr(request, "message", None)
        tag = (getattr(message, "delivery_info", None) or {}).get("consumer_tag")
        if tag in self._tags:
            return self._tags[tag]
        delivery = request.delivery_info or {}
        routing_key = str(delivery.get("routing_key") or "")
        by_route = self._routes.get((str(delivery.get("exchange") or ""), routing_key))
        if by_route is not None:
            return by_route
        if routing_key not in self._queues and len(self._queues) == 1:
            return self._queues[0]
        return routing_key


def note(counts: Counts, event: Event) -> None:
    """Counts one event."""
    kind, name, queue, detail, wait = event
    if kind == FAILED:
        counts.fail(name, queue, str(detail))
        return
    counts.count(kind, name, queue, {"runtime": detail})
    if wait is not None:
        counts.totals(name, queue).queue_wait.observe(wait)


def counted(base: type, counter: RequestCounter) -> type:
    """The task's request class, whose events are counted whether or not they are sent."""

    class CountedRequest(base):  # type: ignore[misc]  # whatever class the task has
        memory_counter = counter

        def __init_subclass__(cls, **options: Any) -> None:
            super().__init_subclass__(**options)
            # Celery derives a class whose own on_success makes no event where the worker sends none
            # of any kind.
            if "on_success" in cls.__dict__:
                cls.on_success = counting(cls.on_success, counter)

        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            # The event has only the exception's repr, which may tell anything.
            try:
                self.memory_exception = name_of(exc_info)
            except Exception as error:
                let_pass(error)
                counter.guard.note("Request.on_failure")
            return super().on_failure(exc_info, *args, **kwargs)

        def send_event(self, type: str, **fields: Any) -> Any:  # Celery's own name for it
            before, self.memory_event = self.__dict__.get("memory_event"), type
            try:
                if type != FAILED:
                    counter.count(type, self, fields)
                elif before != FAILED:  # of a hard time limit Celery tells twice
                    known = self.__dict__.get("memory_exception")
                    counter.count_failure(
                        self,
                        known or exception_class(fields.get("exception"), fields.get("traceback")),
                    )
            except Exception as error:
                let_pass(error)
                counter.guard.note("Request.send_event")
            return super().send_event(type, **fields)

    return CountedRequest


def counting(on_success: Callable[..., Any], counter: RequestCounter) -> Callable[..., Any]:
    """Celery's ``on_success``, after which the success is counted if no event of it was made."""

    @functools.wraps(on_success)
    def counted_success(self: Any, outcome: Any, **kwargs: Any) -> Any:
        answer = on_success(self, outcome, **kwargs)
        try:
            failed, _, runtime = outcome
            if not failed and self.__dict__.get("memory_event") != SUCCEEDED:
                counter.count(SUCCEEDED, self, {"runtime": runtime})
        except Exception as error:
            let_pass(error)
            counter.guard.note("Request.on_success")
        return answer

    return counted_success


def name_of(exc_info: Any) -> str:
    """The class of what a task raised, as Celery's own event unwraps it."""
    exception = getattr(exc_info, "exception", None)
    original = exception.exc if isinstance(exception, ExceptionWithTraceback) else exception
    if isinstance(original, UnpickleableExceptionWrapper):
        return str(original.exc_cls_name)
    # Celery takes a child that a task ends for one that was lost. Nothing is asked of the exception
    # itself, which may do anything.
    return (
        "WorkerLostError"
        if isinstance(original, (SystemExit, KeyboardInterrupt))
        else type(original).__name__
    )


def waited(request: Any) -> float | None:
    """Seconds from when the task was sent, or due, until now; ``None`` where its message does not
    tell."""
    message = getattr(request, "message", None)
    sent = sent_at(
        getattr(message, "headers", None) or {}, getattr(message, "properties", None) or {}
    )
    if sent is None:
        return None
    eta = getattr(request, "_eta", None)
    due = max(sent, eta.timestamp()) if eta is not None else sent
    return max(0.0, time.time() - due)


def copied(requests: Iterable[Any]) -> list[Any]:
    for _ in range(COPY_TRIES):
        try:
            return list(requests)
        except RuntimeError as error:  # a thread of the pool changed it meanwhile
            let_pass(error)
    return []
