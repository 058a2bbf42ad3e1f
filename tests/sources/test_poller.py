"""One step again and again, whatever it raises."""

from __future__ import annotations

import threading
from collections.abc import Callable

from celery_memory_exporter.sources.poller import Attempt, Poller

#: Longer than any test waits.
NEVER = 3600.0
#: What has to happen happens within this, on a crowded machine too.
SOON = 30.0


class Steps:
    """A step that does what the test says, and what was told of it."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = iter(errors)
        self.taken = 0
        self.told: list[Attempt] = []
        self.enough = threading.Event()

    def step(self) -> None:
        self.taken += 1
        error = next(self.errors, None)
        if error is not None:
            raise error

    def tell(self, attempt: Attempt) -> None:
        self.told.append(attempt)
        if len(self.told) == 3:
            self.enough.set()


def clock(*times: float) -> Callable[[], float]:
    ticks = iter(times)
    return lambda: next(ticks)


def test_a_step_and_how_long_it_took_are_told() -> None:
    steps = Steps()
    Poller("x", steps.step, steps.tell, interval=NEVER, monotonic=clock(1.0, 3.5)).poll()
    assert steps.told == [Attempt(2.5, None, again=False)]


def test_an_error_is_told_and_whether_the_step_before_had_failed() -> None:
    steps = Steps(OSError("one"), OSError("two"), None, OSError("three"))
    poller = Poller("x", steps.step, steps.tell, interval=NEVER)
    for _ in range(4):
        poller.poll()
    told = [(str(each.error or ""), each.again) for each in steps.told]
    assert told == [("one", False), ("two", True), ("", False), ("three", False)]


def test_steps_follow_one_another_whatever_they_raise() -> None:
    steps = Steps(OSError(), ValueError())
    poller = Poller("x", steps.step, steps.tell, interval=0.0)
    poller.start()
    assert steps.enough.wait(SOON)
    poller.stop()


def test_it_stops_while_it_waits_for_the_next_step() -> None:
    told = threading.Event()
    poller = Poller("x", lambda: None, lambda _: told.set(), interval=NEVER, patience=SOON)
    poller.start()
    assert told.wait(SOON)
    poller.stop()
    assert "x" not in {thread.name for thread in threading.enumerate()}


def test_it_stops_before_its_first_step() -> None:
    steps = Steps()
    poller = Poller("x", steps.step, steps.tell, interval=0.0)
    poller.start(after=NEVER)
    poller.stop()
    assert steps.taken == 0


def test_it_can_be_stopped_although_it_was_never_started() -> None:
    steps = Steps()
    Poller("x", steps.step, steps.tell, interval=0.0).stop()
    assert steps.taken == 0


def test_a_step_that_has_no_answer_is_not_waited_for() -> None:
    begun, answer = threading.Event(), threading.Event()
    released: list[str] = []

    def step() -> None:
        begun.set()
        answer.wait(SOON)

    poller = Poller(
        "stuck",
        step,
        lambda _: None,
        interval=0.0,
        patience=0.0,
        release=lambda: released.append(threading.current_thread().name),
    )
    poller.start()
    assert begun.wait(SOON)
    poller.stop()
    (thread,) = [each for each in threading.enumerate() if each.name == "stuck"]
    assert released == [], "not while the step may still need it"
    answer.set()
    thread.join(SOON)
    assert released == ["stuck"]


def test_a_step_may_be_the_last_one() -> None:
    steps = Steps()
    ended = threading.Event()

    def step() -> None:
        steps.step()
        poller.finish()

    poller = Poller("x", step, steps.tell, interval=0.0, release=ended.set)
    poller.start()
    assert ended.wait(SOON)
    assert steps.taken == 1


def test_what_is_told_may_change_the_pause() -> None:
    steps = Steps()

    def hurry(attempt: Attempt) -> None:
        poller.interval = 0.0
        steps.tell(attempt)

    poller = Poller("x", steps.step, hurry, interval=NEVER)
    poller.start()
    assert steps.enough.wait(SOON)
    poller.stop()
