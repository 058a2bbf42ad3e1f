"""Task messages counted where Celery makes events of them, sent or not."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionWithTraceback
from celery.signals import task_received
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu import Exchange, Queue

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker.requests import RequestCounter, counted, name_of, waited
from celery_memory_exporter.common.report import Traffic


@pytest.fixture
def counter() -> Any:
    counter = RequestCounter(Guard(), Settings())
    yield counter
    task_received.disconnect(counter.on_received)


class Base:
    """What Celery's own request does with an event: nothing, without ``-E``."""

    def __init__(
        self, name: str = "shop.send", routing_key: str = "mail", exchange: str = "", **changes: Any
    ) -> None:
        self.name = name
        self.delivery_info = {"exchange": exchange, "routing_key": routing_key}
        self.sent: list[str] = []
        self._eta = None
        self.message = SimpleNamespace(headers={}, properties={}, delivery_info={})
        self.__dict__.update(changes)

    def send_event(self, type: str, **_: Any) -> None:
        self.sent.append(type)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        self.send_event("task-failed", exception=repr(exc_info.exception))


def rows(counter: RequestCounter) -> dict[tuple[str, str], Traffic]:
    return {(row.name, row.queue): row for row in counter.traffic()}


def test_each_event_is_counted_and_goes_on_to_celery(counter: RequestCounter) -> None:
    request = counted(Base, counter)()
    for event in (
        "task-started",
        "task-succeeded",
        "task-retried",
        "task-rejected",
        "task-revoked",
    ):
        request.send_event(event, runtime=0.2)
    assert request.sent == [
        "task-started",
        "task-succeeded",
        "task-retried",
        "task-rejected",
        "task-revoked",
    ]
    row = rows(counter)["shop.send", "mail"]
    assert (
        row.started,
        row.succeeded,
        row.retried,
        row.rejected,
        row.revoked,
        row.runtime.sum,
    ) == (1, 1, 1, 1, 1, 0.2)


def test_what_is_received_is_told_by_a_signal(counter: RequestCounter) -> None:
    task_received.send(sender=None, request=counted(Base, counter)())
    assert rows(counter)["shop.send", "mail"].received == 1


class OddError(Exception):
    def __repr__(self) -> str:
        return "nothing that tells"


def test_a_failure_is_known_by_its_class_whatever_it_looks_like(counter: RequestCounter) -> None:
    counted(Base, counter)().on_failure(SimpleNamespace(exception=OddError()), return_ok=True)
    assert rows(counter)["shop.send", "mail"].failed == {"OddError": 1}


def test_a_time_limit_is_known_by_its_event(counter: RequestCounter) -> None:
    counted(Base, counter)().send_event("task-failed", exception="TimeLimitExceeded(1,)")
    assert rows(counter)["shop.send", "mail"].failed == {"TimeLimitExceeded": 1}


def test_a_time_limit_that_is_told_twice_is_one_failure(counter: RequestCounter) -> None:
    request = counted(Base, counter)()
    request.on_failure(SimpleNamespace(exception=TimeoutError()), return_ok=True)
    request.send_event("task-failed", exception="TimeLimitExceeded(1,)")
    assert rows(counter)["shop.send", "mail"].failed == {"TimeoutError": 1}


@pytest.mark.parametrize("events", [False, True])
def test_a_success_is_counted_whether_or_not_celery_makes_an_event_of_it(
    counter: RequestCounter, events: bool
) -> None:
    """Celery derives a class of its own, whose ``on_success`` is another one's when the worker
    sends no events of any kind."""

    class Derived(counted(Base, counter)):  # type: ignore[misc]
        def on_success(self, outcome: tuple[int, str, float], **_: object) -> str:
            if events and not outcome[0]:
                self.send_event("task-succeeded", result=outcome[1], runtime=outcome[2])
            return "answer"

    assert Derived().on_success((0, "None", 0.3)) == "answer"
    assert Derived().on_success((1, "error", 0.3)) == "answer"
    row = rows(counter)["shop.send", "mail"]
    assert (row.succeeded, row.runtime.sum) == (1, 0.3)


def test_exceptions_in_their_wrappings() -> None:
    wrapped = SimpleNamespace(exception=ExceptionWithTraceback(KeyError("x"), None))
    assert name_of(wrapped) == "KeyError"
    stand_in = UnpickleableExceptionWrapper("shop", "Unpicklable", ())
    assert name_of(SimpleNamespace(exception=stand_in)) == "Unpicklable"
    assert name_of(SimpleNamespace(exception=SystemExit(1))) == "WorkerLostError"


class HostileError(Exception):
    """A payload that looks like an exception."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def test_an_exception_may_do_what_it_likes(counter: RequestCounter) -> None:
    request = counted(Base, counter)()
    request.on_failure(SimpleNamespace(exception=HostileError()))
    assert rows(counter)["shop.send", "mail"].failed == {"HostileError": 1}
    assert counter.guard.errors == 0


def test_what_goes_wrong_in_here_is_counted_and_reaches_nobody(counter: RequestCounter) -> None:
    request = counted(Base, counter)(name=None)
    request.send_event("task-started")
    task_received.send(sender=None, request=object())
    assert (request.sent, counter.guard.errors) == (["task-started"], 2)


def test_each_task_gets_a_class_of_its_own_once(counter: RequestCounter) -> None:
    tasks = {name: SimpleNamespace(Request="celery.worker.request:Request") for name in "ab"}
    assert counter.count_tasks(tasks)
    assert all(task.Request.memory_counter is counter for task in tasks.values())
    assert not counter.count_tasks(tasks)


def test_ten_thousand_task_types_are_two_hundred_and_one(counter: RequestCounter) -> None:
    for number in range(10_000):
        counter.count("task-started", Base(name=f"t{number}"), {})
    assert len(counter.traffic()) == 201
    assert counter.folded == 9_800


def consumer(*queues: Queue, tags: dict[str, str] | None = None) -> Any:
    return SimpleNamespace(
        task_consumer=SimpleNamespace(queues=list(queues), _active_tags=tags or {})
    )


@pytest.mark.parametrize(
    ("request_", "queue"),
    [
        (Base(routing_key="mail"), "mail"),
        (Base(exchange="orders", routing_key="order.new"), "orders-in"),
        (Base(exchange="orders", routing_key="order.old"), "order.old"),
        (
            Base(routing_key="x", message=SimpleNamespace(delivery_info={"consumer_tag": "None2"})),
            "orders-in",
        ),
    ],
)
def test_the_queue_that_a_message_came_by(
    counter: RequestCounter, request_: Base, queue: str
) -> None:
    orders = Queue("orders-in", Exchange("orders", type="topic"), routing_key="order.new")
    counter.follow(consumer(Queue("mail"), orders, tags={"mail": "None1", "orders-in": "None2"}))
    assert counter.queue_of(request_) == queue
    assert counter.queues() == ["mail", "orders-in"]


def test_the_only_queue_is_every_messages(counter: RequestCounter) -> None:
    counter.follow(consumer(Queue("all", Exchange("x", type="topic"), routing_key="#")))
    assert counter.queue_of(Base(exchange="x", routing_key="a.b")) == "all"


def test_how_long_a_message_waited() -> None:
    now = time.time()
    assert waited(Base()) is None
    told = Base(
        message=SimpleNamespace(headers={"timestamp_in_ms": 1000 * (now - 10)}, properties={})
    )
    assert waited(told) == pytest.approx(10, abs=1)
    told._eta = datetime.now(timezone.utc) - timedelta(seconds=4)
    assert waited(told) == pytest.approx(4, abs=1)
    told._eta = datetime.now(timezone.utc) + timedelta(seconds=4)
    assert waited(told) == 0
