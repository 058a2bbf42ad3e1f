"""The high-water mark of a run, and that the pool's own use of it is not disturbed."""

from __future__ import annotations

from celery_memory_exporter.agent.meter.high_water import HighWater
from celery_memory_exporter.agent.stats.readings import Readings


class Kernel(Readings):
    """With a mark that the test sets."""

    def __init__(self) -> None:
        self.mark, self.asked, self.resets = 0, 0, 0

    def peak(self) -> int:  # type: ignore[override]
        self.asked += 1
        return self.mark

    def reset_peak(self) -> bool:
        self.resets += 1
        return True


def test_a_mark_above_memory_is_started_anew() -> None:
    kernel = Kernel()
    kernel.mark = 200
    assert HighWater(kernel, None).restart(100)
    assert kernel.resets == 1


def test_a_mark_that_is_no_higher_than_memory_is_left() -> None:
    kernel = Kernel()
    kernel.mark = 100
    assert HighWater(kernel, None).restart(100)
    assert kernel.resets == 0


def test_a_mark_above_the_pools_limit_is_left_for_the_pool() -> None:
    kernel = Kernel()
    kernel.mark = 200
    assert not HighWater(kernel, 150).restart(100)
    assert kernel.resets == 0


def test_the_kernel_is_asked_once_a_run_while_memory_stays() -> None:
    kernel = Kernel()
    high_water = HighWater(kernel, None)
    for _ in range(10):
        high_water.restart(100)
        assert high_water.read(100) == kernel.mark
    assert kernel.asked == 1 + 10
    high_water.restart(104)
    assert kernel.asked == 12, "memory is not what it was: something happened between the runs"
