"""Which process is whose: the process table's workers and processes beside those that agents tell
of.

A process is matched by its identity and never by its name; a name is only guessed where nobody
tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from celery_memory_exporter.common.report import ProcessReport, WorkerReport
from celery_memory_exporter.fleet.facts import Identity, ProcessMemory, WorkerProcesses

#: Broker and nodename.
Key = tuple[str, str]

#: Broker of a worker that only the process table shows; also the only broker's name when it has
#: none.
UNKNOWN_BROKER = ""


def named(
    table: Iterable[WorkerProcesses],
    reports: Mapping[Key, WorkerReport | None],
    *,
    boot_id: str,
    brokers: Sequence[str],
) -> list[tuple[Key, WorkerProcesses]]:
    """Each worker of the table with the name that its own agent gives it, else the one on its
    command line.

    ``reports`` are the last ones of all workers that are known, ``boot_id`` is this machine's. A
    command line's name that another worker has is numbered: two workers of one host stay apart even
    when they were started with the same name, and a worker on another machine keeps its own.
    """
    reported = _Reported(reports, boot_id)
    found: list[tuple[Key, WorkerProcesses]] = []
    unnamed: list[WorkerProcesses] = []
    taken = {
        key for key, report in reports.items() if report and report.instance.boot_id != boot_id
    }
    for processes in table:
        key = reported.find(processes.main.identity)
        if key is None:
            unnamed.append(processes)
        else:
            taken.add(key)
            found.append((key, processes))
    heard = _heard_at(reports)
    for processes in unnamed:
        key = _free_key(_broker_of(processes.nodename, brokers, heard), processes.nodename, taken)
        taken.add(key)
        found.append((key, processes))
    return found


def process_of(report: WorkerReport | None, seen: ProcessMemory) -> ProcessReport | None:
    """What the worker's agent tells of a process that the table shows."""
    if report is None:
        return None
    namespace = report.instance.pid_namespace
    matching = (
        each
        for each in report.processes
        if seen.identity.matches(each.pid, each.start_ticks, namespace)
    )
    return next(matching, None)


class _Reported:
    """Workers by their main process, of those on this machine: looked up once for each worker of
    the table."""

    def __init__(self, reports: Mapping[Key, WorkerReport | None], boot_id: str) -> None:
        #: Pid and start are what most processes differ in; the namespace may be unknown.
        self._by_start: dict[tuple[int, int | None], list[tuple[Key, int | None]]] = {}
        for key, report in reports.items():
            if report is not None and report.instance.boot_id == boot_id:
                told = report.instance
                alike = self._by_start.setdefault((told.pid, told.start_ticks), [])
                alike.append((key, told.pid_namespace))

    def find(self, main: Identity) -> Key | None:
        """The first worker whose main process that is."""
        started = main.inner_pid, main.start_ticks
        for key, namespace in self._by_start.get(started, ()):
            if main.matches(*started, namespace):
                return key
        return None


def _heard_at(known: Iterable[Key]) -> dict[str, list[str]]:
    """The brokers at which a nodename was heard."""
    brokers: dict[str, list[str]] = {}
    for broker, nodename in known:
        if broker != UNKNOWN_BROKER:
            brokers.setdefault(nodename, []).append(broker)
    return brokers


def _broker_of(nodename: str, brokers: Sequence[str], heard: Mapping[str, list[str]]) -> str:
    """The only broker, or the one at which a worker of that name was heard; unknown where none or
    several were."""
    candidates = brokers if len(brokers) == 1 else heard.get(nodename, ())
    return candidates[0] if len(candidates) == 1 else UNKNOWN_BROKER


def _free_key(broker: str, nodename: str, taken: set[Key]) -> Key:
    numbered = (f"{nodename}#{number}" for number in range(2, len(taken) + 3))
    return next((broker, name) for name in (nodename, *numbered) if (broker, name) not in taken)
