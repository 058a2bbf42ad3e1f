"""What is not the agent's own passes through it, and what is does not."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.audit.lines import LineWatch
from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.interruptions import collect, is_from_handler, let_pass
from celery_memory_exporter.agent.stats.readings import Readings


class OutOfTimeError(Exception):
    """An application's own."""


class Handler:
    def handle(self, number: int, frame: Any) -> None:
        raise OutOfTimeError


def star(*_: Any) -> None:
    raise TimeoutError(110, "an OSError")


def deep(number: int, frame: Any) -> None:
    def further() -> None:
        raise ValueError("from below")

    further()


@pytest.fixture
def handled() -> Iterator[Callable[[Any], None]]:
    """Installs a handler of SIGUSR1."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler)  # type: ignore[return-value]
    signal.signal(signal.SIGUSR1, before)


def caught(body: Callable[[], object]) -> Exception:
    try:
        body()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("handler", [Handler().handle, star, deep])
def test_what_a_handler_raises_passes(
    handler: Any, handled: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a call of the agent's, as an alarm that comes while it reads."""
    handled(handler)
    readings = Readings()

    def interrupted(*_: Any) -> bytes:
        signal.raise_signal(signal.SIGUSR1)
        return b""

    monkeypatch.setattr(os, "pread", interrupted)
    error = caught(readings.rss)
    assert is_from_handler(error)
    assert isinstance(error, (OutOfTimeError, TimeoutError, ValueError))


def test_an_error_of_a_reading_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> bytes:
        raise TimeoutError(110, "a network file system")

    readings = Readings()
    monkeypatch.setattr(os, "pread", broken)
    assert readings.rss() is None


class Agent:
    def __init__(self) -> None:
        self.guard = Guard()

    @guarded
    def fail(self, error: Exception) -> None:
        raise error


def test_a_soft_time_limit_passes_and_an_own_error_is_noted() -> None:
    agent = Agent()
    with pytest.raises(SoftTimeLimitExceeded):
        agent.fail(SoftTimeLimitExceeded())
    agent.fail(KeyError("no such row"))
    assert agent.guard.errors == 1


@pytest.mark.parametrize("kind", [OutOfTimeError, TimeoutError])
def test_what_another_thread_sends_passes(kind: type[Exception]) -> None:
    """While a watch reads its figures, which here takes a second or so."""
    inside = threading.Event()
    many = {f"descriptors {number}": Readings.fds for number in range(100_000)}
    watch = LineWatch({"first": inside.set, **many}, seconds=60.0)
    errors: list[BaseException] = []

    def body() -> None:
        watch._following, watch._values = True, [0.0] * (1 + len(many))
        try:
            watch._on_event(sys._getframe(), "line", None)
        except kind as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    inside.wait()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(kind)
    )
    thread.join()
    assert [type(error) for error in errors] == [kind]


def test_what_the_application_raises_when_it_is_called_does_not_pass() -> None:
    def reduce() -> None:
        raise OutOfTimeError("my own mistake")

    error = caught(reduce)
    let_pass(error)
    assert not is_from_handler(error)


class Ends:
    """Garbage whose finalizer is called by a collection only."""

    def __init__(self, how: Callable[[], object]) -> None:
        self.itself = self
        self.how = how

    def __del__(self) -> None:
        self.how()


@pytest.mark.parametrize("kind", [OutOfTimeError, SoftTimeLimitExceeded])
def test_what_arrives_while_a_finalizer_is_called_is_raised_after_the_collection(
    kind: type[Exception], handled: Callable[[Any], None]
) -> None:
    def handle(number: int, frame: Any) -> None:
        raise kind

    handled(handle)
    gc.collect()
    before = sys.unraisablehook
    Ends(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert type(caught(lambda: collect(2))) is kind
    assert sys.unraisablehook is before


def test_what_a_finalizer_raises_by_itself_goes_to_the_applications_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_type))
    gc.collect()
    Ends(lambda: 1 // 0)
    assert collect(2) > 0
    assert seen == [ZeroDivisionError]
