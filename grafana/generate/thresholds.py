"""Every number that decides whether an alert fires, each once, with the reason for it beside it.

``docs/runbooks/README.md`` shows them as a table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Threshold:
    """``value`` is as PromQL or a rule file has it; ``what`` is what it is held against."""

    value: str
    what: str
    reason: str

    def __str__(self) -> str:
        return self.value


# How long a condition has to hold, and what holds an alert
VERDICT_FOR = Threshold(
    "1m",
    "time that a verdict stands",
    "The verdict is sure of itself: 110 runs or more, in at least half of the processes.",
)
STATE_FOR = Threshold(
    "5m",
    "time that a condition holds",
    "Outlasts a deploy and lost scrapes. A worker's series go after 600 s of silence: "
    "`for` has to be less.",
)
GONE_FOR = Threshold(
    "3m",
    "time that a worker is down",
    "Without an agent, a worker is shown as down from 300 to 600 s of silence: "
    "`for` has to be less than the 300 s between.",
)
KEEP_FIRING = Threshold(
    "15m",
    "time that the alert is held",
    "A restarted worker has no verdict for a while: "
    "the alert does not come and go with each restart.",
)
REMEMBERED = Threshold(
    "1h",
    "time that a worker is remembered",
    "Its series go after 600 s of silence; who is on call should find it named for longer.",
)
EXPORTER_REMEMBERED = Threshold(
    "2d",
    "time that an exporter is remembered",
    "A weekend: the alert does not end by itself before somebody is back.",
)

# Memory
LOW_WATER = Threshold(
    "15m",
    "window of a low-water mark",
    "Longer than most tasks run: peaks that come and go do not count, what stays does.",
)
SOON = Threshold(
    "24 * 3600", "seconds until the limit (warning)", "There is a working day to look at it."
)
SOON_WINDOW = Threshold(
    "6h",
    "time that is looked back on (warning)",
    "A quarter of the time that is foretold; after a restart it waits as long.",
)
SOON_SHARE = Threshold(
    "0.6",
    "share of the memory limit (warning)",
    "In use for the whole time that is looked back on: "
    "keeps start-up and restarts out of the line that is drawn.",
)
VERY_SOON = Threshold(
    "4 * 3600",
    "seconds until the limit (critical)",
    "Within this shift: whoever is on call has to act.",
)
VERY_SOON_WINDOW = Threshold(
    "1h",
    "time that is looked back on (critical)",
    "A quarter of the time that is foretold; after a restart it waits as long.",
)
VERY_SOON_SHARE = Threshold(
    "0.75",
    "share of the memory limit (critical)",
    "A quarter of the limit is left, which a leak this fast fills in 4 hours.",
)
GROWTH_WINDOW = Threshold(
    "2h",
    "window of each of three lowest values",
    "Three of them are 6 hours: daily work is in there, and a warm-up ends in the first.",
)
GROWTH_BYTES = Threshold(
    "32 * 2^20",
    "bytes from one lowest value to the next",
    "Resident memory that no agent explains has to rise by what caches "
    "and an allocator do not gain in 2 hours, twice.",
)
FREE_BYTES = Threshold(
    "256 * 2^20", "unused bytes in the C heap", "Less is not worth anybody's time."
)
FREE_SHARE = Threshold(
    "0.3",
    "share of resident memory that is unused",
    "A third of what the worker costs: a setting of the allocator pays for itself.",
)
FREE_WINDOW = Threshold(
    "1h",
    "time that it stays unused",
    "An allocator keeps memory between two bursts of work, and that is right.",
)
UNCOLLECTABLE = Threshold(
    "0",
    "objects in gc.garbage",
    "Nothing is ever put there in sound programs; what is there is never freed.",
)

# Kills and recycling
KILL_WINDOW = Threshold(
    "10m",
    "time in which a kill is told",
    "Longer than a scrape or a rule's evaluation can be late.",
)
RECYCLE_WINDOW = Threshold(
    "15m", "time in which ended children are counted", "Long enough that one bad batch is no loop."
)
RECYCLES = Threshold(
    "15",
    "ended children in that time, by process of the pool",
    "Each child lives less than a minute: it costs more to start it than it gets done. Those of "
    "max_tasks_per_child do not count.",
)

# Descriptors and threads
DESCRIPTOR_SHARE = Threshold(
    "0.8", "share of the limit of descriptors", "At the limit each open() and connect() fails."
)
DESCRIPTORS = Threshold(
    "50",
    "descriptors from one lowest value to the next",
    "More than pools of connections gain once they have warmed up, twice.",
)
THREADS = Threshold(
    "10",
    "threads from one lowest value to the next",
    "A pool of threads is full by then; this goes on, twice.",
)

# Queues and tasks
QUEUE_WINDOW = Threshold(
    "10m",
    "window of each of three lowest values",
    "A batch that is worked off within it leaves the lowest value where it was.",
)
QUEUE_MESSAGES = Threshold(
    "100",
    "messages from one lowest value to the next",
    "More than chance: the workers fall behind by ten messages a minute, twice.",
)
FAILURE_WINDOW = Threshold(
    "15m",
    "time in which failures are counted",
    "Short enough to tell of a deploy, long enough for rare tasks.",
)
FAILURES = Threshold(
    "5", "failures in that time", "One failure of two runs is half of them, and no news."
)
FAILURE_SHARE = Threshold(
    "0.05", "share of runs that failed", "As celery-mixin's alerts have it."
)

# The exporter and the agents
REJECTED = Threshold(
    "5", "refused reports in 10 minutes", "A worker sends 40 in that time: one odd one is no news."
)
REJECTED_WINDOW = Threshold(
    "10m",
    "time in which refused reports are counted",
    "Longer than `for`, so that it sees them go on.",
)
OVERHEAD_WINDOW = Threshold(
    "15m",
    "time over which the agent's time is averaged",
    "Its audits come in bursts, after a start above all.",
)
OVERHEAD_SHARE = Threshold(
    "0.05",
    "share of the pool's time that the agent takes",
    "Audits may take 1 % and deep ones another 1 %, and each run some 0.2 ms: "
    "more than 5 % is a worker of very short tasks.",
)

#: By alert, beside how long all of them have to hold.
OF_ALERT = {
    "CeleryTaskLeak": (VERDICT_FOR,),
    "CeleryWorkerMemoryLeak": (GROWTH_BYTES, GROWTH_WINDOW),
    "CeleryWorkerMemoryLimitSoon": (
        SOON,
        SOON_SHARE,
        SOON_WINDOW,
        VERY_SOON,
        VERY_SOON_SHARE,
        VERY_SOON_WINDOW,
        LOW_WATER,
    ),
    "CeleryWorkerOOMKilled": (KILL_WINDOW,),
    "CeleryTaskLostToKill": (KILL_WINDOW,),
    "CeleryChildRecycleLoop": (RECYCLES, RECYCLE_WINDOW),
    "CeleryWorkerMemoryNotReturned": (FREE_BYTES, FREE_SHARE, FREE_WINDOW),
    "CeleryWorkerDescriptorLeak": (DESCRIPTOR_SHARE, DESCRIPTORS, GROWTH_WINDOW),
    "CeleryWorkerThreadLeak": (THREADS, GROWTH_WINDOW),
    "CeleryUncollectableObjects": (UNCOLLECTABLE,),
    "CeleryWorkerDown": (GONE_FOR, REMEMBERED),
    "CeleryQueueGrowing": (QUEUE_MESSAGES, QUEUE_WINDOW),
    "CeleryTaskFailureRate": (FAILURE_SHARE, FAILURES, FAILURE_WINDOW),
    "CeleryMemoryReportsMissing": (REJECTED, REJECTED_WINDOW, REMEMBERED),
    "CeleryMemoryExporterDown": (EXPORTER_REMEMBERED,),
    "CeleryAgentOverhead": (OVERHEAD_SHARE, OVERHEAD_WINDOW),
}
OF_MOST = (STATE_FOR, KEEP_FIRING)
