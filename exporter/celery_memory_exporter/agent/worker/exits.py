"""Why a pool child ended: by its own last record, by the exit code that the pool has of it, and by
the kernel's count of OOM kills."""

from __future__ import annotations

from collections.abc import Callable

from celery_memory_exporter.agent.worker.ledger import ProcessTotals

#: billiard's exit status of a child that reached its task or memory limit.
EX_RECYCLE = 155
SIGKILL = 9


class Exits:
    """Of one worker. ``oom_kills`` reads how many processes of this cgroup the kernel has killed
    so far, ``None`` where it does not tell."""

    def __init__(self, memory_limit_bytes: int | None, oom_kills: Callable[[], int | None]) -> None:
        self._memory_limit_bytes = memory_limit_bytes
        self._read_oom_kills = oom_kills
        self._oom_kills = oom_kills()

    def reason(self, child: ProcessTotals, exit_code: int | None) -> str:
        """One of ``EXIT_REASONS``. ``exit_code`` is the pool's; a child that ended by itself has
        sent its own before."""
        if EX_RECYCLE in (child.exit_code, exit_code):
            limit = self._memory_limit_bytes
            peak = child.peak_bytes or child.figures.peak_rss_bytes or 0
            return "memory" if limit is not None and peak > limit else "tasks"
        if child.exit_code is not None or exit_code == 0:
            return "shutdown"
        if exit_code is not None and exit_code > 0:
            return "error"
        # Also of a child that came and went between two looks, without a word: only a kill keeps
        # one from telling.
        return "oom" if exit_code in (-SIGKILL, None) and self._take_oom_kill() else "signal"

    def _take_oom_kill(self) -> bool:
        """Whether the kernel's count of OOM kills in this cgroup explains one more SIGKILL."""
        now = self._read_oom_kills()
        if now is None or self._oom_kills is None or now <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True
