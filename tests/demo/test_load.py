"""Which tasks the demo sends, and when it does not."""

from __future__ import annotations

from collections import Counter

import pytest

from celery_memory_exporter.demo import load
from celery_memory_exporter.sources.poller import Attempt


def sent(rounds: int, waiting: int = 0) -> Counter[str]:
    counts: Counter[str] = Counter()
    sending = load.Load(lambda: waiting, lambda task, _: counts.update([task]))
    for _ in range(rounds):
        sending.round()
    return counts


def test_the_leak_its_twin_and_the_greeting_run_equally_often_and_the_batch_seldom() -> None:
    assert sent(rounds=10) == {
        "process_and_cache_data": 10,
        "process_and_cache_data_bounded": 10,
        "send_greeting": 10,
        "process_batch": 2,
    }


def test_nothing_is_sent_while_too_many_wait() -> None:
    assert sent(rounds=10, waiting=load.MAX_WAITING) == {}
    assert sent(rounds=10, waiting=load.MAX_WAITING - 1)


def test_a_key_never_comes_again() -> None:
    keys: list[object] = []
    sending = load.Load(lambda: 0, lambda task, argument: keys.append((task, argument)))
    for _ in range(4):
        sending.round()
    assert len(set(keys)) == len(keys)


def test_a_load_that_cannot_be_sent_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    for again in (False, True):
        load.tell(Attempt(0.0, OSError("disk full"), again=again))
    load.tell(Attempt(0.0, None, again=False))
    assert capsys.readouterr().err == "No task can be sent: disk full\n"
