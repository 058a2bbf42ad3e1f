"""When two tell of one process."""

from __future__ import annotations

import pytest

from celery_memory_exporter.fleet.facts import Identity


@pytest.mark.parametrize(
    ("told", "same"),
    [
        ((7, 70, 1), True),
        ((8, 70, 1), False),  # another pid
        ((7, 71, 1), False),  # the pid was used again
        ((7, 70, 2), False),  # the pid of another container
        ((7, 70, None), True),  # the agent could not read its namespace
        ((7, None, 1), False),
    ],
)
def test_a_process_is_its_pid_and_start_in_its_namespace(
    told: tuple[int, int | None, int | None], same: bool
) -> None:
    assert Identity(7, 70, 1).matches(*told) is same


def test_a_namespace_that_may_not_be_looked_at_could_be_any() -> None:
    assert Identity(7, 70).matches(7, 70, 2)
