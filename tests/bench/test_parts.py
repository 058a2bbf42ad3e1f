"""Each part of the benchmark runs on as little as it can, but for one. No figure is asked for."""

from __future__ import annotations

import pytest

from tests.bench.result import Options
from tests.bench.run import PARTS

#: Parts with real workers, and how many tasks these run.
TASKS = {"throughput": 500, "recycling": 500, "flat": 600, "flat_recycled": 1_500}
#: It installs Flower from the network, and is run by hand.
INSTALLING = "peers"


@pytest.mark.parametrize("name", sorted(PARTS.keys() - TASKS.keys() - {INSTALLING}))
def test_a_part_runs(name: str) -> None:
    assert PARTS[name].measure(Options(rounds=1, least=True))


@pytest.mark.integration
@pytest.mark.parametrize("name", TASKS)
def test_a_part_with_real_workers_runs(name: str) -> None:
    assert PARTS[name].measure(Options(rounds=1, tasks=TASKS[name], least=True))
