"""What outlived a run, out of the collector's middle generation."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from celery_memory_exporter.agent.audit import survivors
from tests.agent.audit.harness import Thing, answer


@pytest.fixture
def _nothing_yet() -> Iterator[None]:
    """All that there is so far is old."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Odd(type):
    """Its classes cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        raise TypeError("not to be compared")


class Own(metaclass=Odd):
    """An instance of it is tracked."""


@pytest.mark.usefixtures("_nothing_yet")
def test_types_are_counted_without_the_runs_own_answer() -> None:
    kept, result = [Thing() for _ in range(7)], answer()
    gc.collect(0)
    found = survivors.by_type(result)
    assert found[f"{Thing.__module__}.Thing"] == len(kept)
    assert "celery.app.trace.trace_ok_t" not in found


@pytest.mark.usefixtures("_nothing_yet")
def test_instances_of_classes_tell_most() -> None:
    kept = [[], {"a": []}, Thing()]
    gc.collect(0)
    told = survivors.telling()
    assert len(told) <= survivors.FEW
    assert not {type(each) for each in told} & {list, dict}
    assert kept


@pytest.mark.usefixtures("_nothing_yet")
def test_a_tuple_that_may_be_in_the_making_is_not_held() -> None:
    kept = [([],) for _ in range(2_000)]
    gc.collect(0)
    assert tuple not in {type(each) for each in survivors.telling()}
    assert kept


@pytest.mark.usefixtures("_nothing_yet")
def test_a_class_that_cannot_be_hashed_is_told_like_any_other() -> None:
    kept = Own()
    gc.collect(0)
    assert any(each is kept for each in survivors.telling())


@pytest.fixture
def _no_callbacks() -> Iterator[None]:
    """Up to 3.11 a collection may begin in any call into C, and its callbacks let threads run."""
    others = gc.callbacks.copy()
    gc.callbacks.clear()
    yield
    gc.callbacks.extend(others)


@pytest.mark.usefixtures("_no_callbacks")
def test_threads_make_their_tuples_meanwhile() -> None:
    """CPython up to 3.13 fails with a SystemError when a tuple in the making is held elsewhere."""
    errors: list[BaseException] = []
    stop = threading.Event()

    def make() -> None:
        try:
            while not stop.is_set():
                tuple([number] for number in range(2_000))
        except SystemError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        survivors.by_type(answer())
        survivors.telling()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
