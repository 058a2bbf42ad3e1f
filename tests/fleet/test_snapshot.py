"""Values that the fleet answers with."""

from __future__ import annotations

import pytest

from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.fleet.snapshot import WorkerView


@pytest.mark.parametrize(
    ("nodename", "hostname"), [("celery@web1", "web1"), ("a@b@c", "b@c"), ("web1", "web1")]
)
def test_the_hostname_is_the_nodename_after_the_at_sign(nodename: str, hostname: str) -> None:
    view = WorkerView(
        nodename, up=True, live=True, report=None, processes=(), cgroup=CgroupMemory()
    )
    assert view.hostname == hostname
