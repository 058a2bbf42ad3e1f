"""How often clients sent each task."""

from __future__ import annotations

from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.senders import Senders
from celery_memory_exporter.fleet.snapshot import SentView
from tests import samples

START, NEARLY, TOO_LATE = 0.0, 600.0, 601.0


def make_senders(*, told_apart: bool = True, **limits: int) -> Senders:
    return Senders(Rules(samples.BOOT, Limits(**limits), senders=told_apart))


def by_host(senders: Senders, now: float = START) -> dict[str, int]:
    return {sent.hostname: sent.count for sent in senders.views(now)}


def test_tasks_are_counted_by_queue_and_not_by_client() -> None:
    senders = make_senders(told_apart=False)
    for pod in range(100):
        senders.add("", "shop.send", f"gen{pod}@pod{pod}", "slow", START)
    assert senders.views(1e9) == (SentView("", "shop.send", "generic", "slow", 100),)


def test_clients_told_apart_are_their_hosts() -> None:
    senders = make_senders()
    for sender in ("gen1@pod1", "gen2@pod1", "pod2"):
        senders.add("", "shop.send", sender, "slow", START)
    assert by_host(senders) == {"pod1": 2, "pod2": 1}


def test_hosts_beyond_the_limit_are_one_and_counted() -> None:
    senders = make_senders(senders=2)
    for number in range(4):
        senders.add("", "shop.send", f"gen@pod{number}", "slow", START)
    assert by_host(senders) == {"pod0": 1, "pod1": 1, "other": 2}
    assert senders.folded == 2


def test_tasks_beyond_the_limit_are_one_and_counted() -> None:
    senders = make_senders(told_apart=False, tasks_per_worker=1)
    for name in ("a", "b", "c", "d", "a"):
        senders.add("", name, "gen@pod", "slow", START)
    assert [(sent.name, sent.queue, sent.count) for sent in senders.views(START)] == [
        ("a", "slow", 2),
        ("b", "slow", 1),
        ("other", "", 2),
    ]
    assert senders.folded == 2


def test_long_names_are_cut() -> None:
    senders = make_senders(label_length=16)
    senders.add("", "n" * 20, f"gen@{'h' * 20}", "q" * 20, START)
    assert senders.views(START) == (SentView("", "n" * 16, "h" * 16, "q" * 16, 1),)


def test_a_silent_client_is_not_there() -> None:
    senders = make_senders()
    senders.add("", "shop.send", "gen@pod0", "slow", START)
    senders.add("", "shop.send", "gen@pod1", "slow", NEARLY)
    assert by_host(senders, TOO_LATE) == {"pod1": 1}
    assert by_host(senders, NEARLY) == {"pod0": 1, "pod1": 1}, "looking has changed nothing"


def test_a_client_that_was_forgotten_makes_room_and_begins_anew() -> None:
    senders = make_senders(senders=1)
    senders.add("", "shop.send", "gen@pod0", "slow", START)
    senders.forget(TOO_LATE)
    senders.add("", "shop.send", "gen@pod1", "slow", TOO_LATE)
    assert by_host(senders, TOO_LATE) == {"pod1": 1}
