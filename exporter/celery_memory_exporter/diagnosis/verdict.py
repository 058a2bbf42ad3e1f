"""What the diagnosis answers with: suspects, what was cleared, and each worker. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from celery_memory_exporter.common.evidence import Holder

#: The class of growth of what is not known yet.
UNSETTLED = "unsettled"


@dataclass(frozen=True, slots=True)
class ObjectRate:
    """Objects of one type that outlive an audited run."""

    type: str
    per_run: float


@dataclass(frozen=True, slots=True)
class SiteRate:
    """A line, and how much of ``figure`` a deep-audited run leaves behind there: ``bytes`` of
    Python's memory, or what a watch over the lines saw rise, in its own unit (``native`` and
    ``shared`` in bytes)."""

    site: str
    amount_per_run: float
    figure: str = "bytes"


@dataclass(frozen=True, slots=True)
class Suspect:
    """Something that leaks. ``task`` is ``None`` where only the process grows."""

    worker: str
    task: str | None
    growth_class: str
    #: All that apply; ``growth_class`` is the one that tells most.
    growth_classes: tuple[str, ...]
    #: What it counts in: bytes, or descriptors, threads, processes.
    retained_bytes_per_run: float
    retained_bytes_per_hour: float
    retained_count_per_run: float
    runs: int
    audited_runs: int
    confidence: float
    processes: int
    growing_processes: int
    advice: str
    #: ``failed`` when only failing runs leak.
    outcome: str | None = None
    process: str | None = None
    object_types: tuple[ObjectRate, ...] = ()
    sites: tuple[SiteRate, ...] = ()
    holders: tuple[Holder, ...] = ()
    paths: tuple[str, ...] = ()
    #: Unix time since when it has been told; ``None`` where nobody remembers.
    since: float | None = None

    @property
    def holder(self) -> str:
        """The one that explains most, or nothing."""
        return self.holders[0].path if self.holders else self.paths[0] if self.paths else ""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Looked at, and no leak; ``growth_class`` says what it looked like. ``UNSETTLED``: it is not
    known yet whether it leaks."""

    worker: str
    task: str
    growth_class: str
    reason: str
    retained_bytes_per_run: float
    runs: int
    audited_runs: int
    advice: str = ""
    #: Seconds until it should be known, if runs go on as they did; ``None`` where that cannot be
    #: told.
    known_in_seconds: float | None = None
    #: Whether evidence speaks against a leak, though not all is known.
    contradicted: bool = False

    @property
    def settled(self) -> bool:
        """Whether it is known that it does not leak."""
        return self.growth_class != UNSETTLED


@dataclass(frozen=True, slots=True)
class WorkerVerdict:
    """One worker: how fast it leaks, and how long until its memory limit at that rate."""

    worker: str
    leaking: bool
    retained_bytes_per_hour: float
    rss_bytes: int | None
    limit_bytes: int | None
    seconds_to_limit: float | None
    growth_class: str
    advice: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Suspects, worst first; task types that are cleared or not judged yet; workers."""

    suspects: tuple[Suspect, ...] = ()
    cleared: tuple[Cleared, ...] = ()
    workers: tuple[WorkerVerdict, ...] = ()

    @property
    def unsettled(self) -> tuple[Cleared, ...]:
        """Task types of which it is not known yet whether they leak."""
        return tuple([each for each in self.cleared if not each.settled])
