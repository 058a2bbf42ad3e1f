"""What speaks for or against a task type: the part of a report that a verdict is made from.

Standard library only, because the agent loads it inside the worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Lower bounds of the ages of a profile, in runs of the task type that its process had seen before.
#: Some steps up to 115, where a verdict falls; then wider ones, since a process's whole life is
#: covered.
AGES = (
    *(0, 1, 5, 10, 20, 30, 45, 60, 75, 90, 105, 115, 150, 180, 240, 320),
    *(500, 1_000, 2_000, 5_000, 20_000, 200_000),
)
#: Runs of a task type that are a process's start-up: imports, connections, caches of libraries.
WARM_RUNS = 30


@dataclass(frozen=True, slots=True)
class Profile:
    """Per age: all runs, and what measured ones left behind, summed over processes, gone ones
    included (these count ever less).

    Audited runs are exact; ``garbage`` is what the collector found in them. Sampled ones are
    readings before and after.
    """

    runs: list[float]
    audited: list[float]
    blocks: list[float]
    native: list[float]
    #: The sum of the squares of the bytes that each audited run left: for the error of their mean.
    squares: list[float]
    fds: list[float]
    threads: list[float]
    children: list[float]
    shared: list[float]
    #: Audited runs in which it rose.
    shared_rises: list[float]
    garbage_blocks: list[float]
    garbage_native: list[float]
    #: Bytes of those audited runs that left or freed so much that a reading without an audit would
    #: have told, too.
    large: list[float]
    large_squares: list[float]
    #: Runs that were only read before and after, and bytes of those that tell.
    sampled: list[float]
    sampled_bytes: list[float]
    sampled_squares: list[float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of one run by least squares over intervals, where runs cannot be measured one by one;
    and of the later half alone."""

    per_run: float
    #: Standard errors; absent where they cannot be told.
    error: float | None
    late_per_run: float
    late_error: float | None
    runs: int
    intervals: int


@dataclass(frozen=True, slots=True)
class Site:
    """A line (``file:line``) and how much of ``figure`` deep-audited runs left behind there:
    ``bytes`` is what Python allocated."""

    site: str
    figure: str
    amount: float


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that grows with the runs. ``growth`` is what deep-audited runs added; ``limit``
    what it can hold at most."""

    path: str
    kind: str
    items: int
    growth: float
    limit: int | None = None
    #: Items that a run adds, by least squares, where runs overlap in one process.
    share: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """How a container filled up while the type ran, by ages from the end of start-up on: items
    gained, and runs meanwhile."""

    path: str
    gains: list[float]
    runs: list[float]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for or against a task type, over all processes of the worker."""

    profile: Profile
    #: Processes that measured enough runs past start-up, and those of them in which something was
    #: left behind.
    processes: float = 0.0
    growing: float = 0.0
    failed_audits: float = 0.0
    failed_bytes: float = 0.0
    #: Since the worker first ran the type.
    seconds: float = 0.0
    #: Objects that outlived audited runs past start-up, by type.
    survivors: dict[str, int] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    deep_audits: int = 0
    #: Those with tracemalloc, which told bytes, and those with a watch over lines, which told the
    #: other figures.
    traced_audits: int = 0
    watched_audits: int = 0
    holders: list[Holder] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    #: Reference paths from a module to a survivor.
    paths: list[str] = field(default_factory=list)
    #: Live bytes by least squares, where runs overlap in one process.
    overlapping: Estimate | None = None
    #: Full garbage collections meanwhile.
    collections: int = 0
    #: Bytes in tmpfs by least squares, which no process can tell its own part of.
    tmpfs: Estimate | None = None

    def per_run(self, site: Site) -> float:
        """What a run leaves behind at this line, of the line's figure."""
        return site.amount / max(
            1, self.traced_audits if site.figure == "bytes" else self.watched_audits
        )
