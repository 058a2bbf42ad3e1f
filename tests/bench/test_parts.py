"""Each part of the benchmark runs: once, on as little as it can. What it says is no figure here."""

from __future__ import annotations

import pytest

from tests.bench.result import BenchError, Options
from tests.bench.run import PARTS

#: Parts with real workers, and how many tasks these run.
TASKS = {"throughput": 1_500, "flat": 600}
#: It installs Flower, from the network.
INSTALLING, ITS_TASKS = "peers", 200


@pytest.mark.parametrize("name", sorted(PARTS.keys() - TASKS.keys() - {INSTALLING}))
def test_a_part_runs(name: str) -> None:
    assert PARTS[name].measure(Options(rounds=1, least=True))


@pytest.mark.integration
@pytest.mark.parametrize("name", TASKS)
def test_a_part_with_real_workers_runs(name: str) -> None:
    assert PARTS[name].measure(Options(rounds=1, tasks=TASKS[name], least=True))


@pytest.mark.integration
def test_the_part_beside_others_runs() -> None:
    try:
        assert PARTS[INSTALLING].measure(Options(rounds=1, tasks=ITS_TASKS, least=True))
    except BenchError as error:
        pytest.skip(str(error))
