"""The demo's application leaks where it should and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_memory_exporter.demo import shop


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    yield
    shop._my_app_cache.clear()
    shop._my_bounded_cache.clear()


def test_each_run_of_the_leak_leaves_an_entry() -> None:
    for number in range(50):
        shop.process_and_cache_data(f"order-{number}")
    assert len(shop._my_app_cache) == 50


def test_its_twin_holds_no_more_than_it_may() -> None:
    for number in range(50):
        shop.process_and_cache_data_bounded(f"order-{number}")
    assert list(shop._my_bounded_cache) == [f"order-{number}" for number in range(30, 50)]


def test_the_others_keep_nothing() -> None:
    assert shop.process_batch(10) == sum(len(f"row {number}") for number in range(10))
    assert shop.send_greeting("you") == "Hello, you!"
    assert not shop._my_app_cache
