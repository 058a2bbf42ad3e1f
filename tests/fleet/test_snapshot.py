"""Values that the fleet answers with."""

from __future__ import annotations

from celery_memory_exporter.fleet.snapshot import GroupView, Snapshot
from tests.diagnosis.evidence import view


def test_a_group_has_the_name_and_the_broker_that_its_members_share() -> None:
    member = view(None, broker="eu")
    group = GroupView((member, member))
    assert (group.broker, group.nodename) == ("eu", member.nodename)


def test_the_workers_are_the_members_of_all_groups() -> None:
    first, second, third = (view(None, age_seconds=float(number)) for number in range(3))
    assert Snapshot((GroupView((first, second)), GroupView((third,)))).workers == (
        first,
        second,
        third,
    )
