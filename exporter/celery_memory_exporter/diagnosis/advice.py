"""One line of advice for each class of growth."""

from __future__ import annotations

from celery_memory_exporter.diagnosis.verdict import UNSETTLED, Suspect

LEAK = {
    "python": (
        "Something that outlives the run holds what it makes: bound it, clear it, or hold it "
        "weakly."
    ),
    "native": (
        "C code allocates what nobody frees: look for a missing close() or free() in an extension "
        "or ctypes call."
    ),
    "resident": (
        "Resident memory rises with its runs, and no heap that can be read explains it: look for "
        "anonymous maps and pools of libraries (Arrow, PyTorch, another malloc) that are not freed."
    ),
    "garbage": (
        "The garbage collector is off, so reference cycles stay: turn it on, or call gc.collect() "
        "now and then."
    ),
    "descriptors": (
        "Files or sockets are opened and not closed: use `with`, or close them in a finally block."
    ),
    "threads": (
        "Each run leaves a thread behind: end it and join it, or use one pool of threads for all "
        "runs."
    ),
    "processes": (
        "Each run leaves a child process behind: wait for it (Popen.wait, communicate, or `with`)."
    ),
    "shared": (
        "Files in memory (/dev/shm, tmpfs) or shared maps stay, and count as the container's "
        "memory: delete or close them."
    ),
    "main": (
        "The worker's main process grows, not its children: signal handlers (task_received), "
        "bootsteps and threads of the application live there."
    ),
}
#: Where requests that wait are what the main process grows by.
WAITING = (
    "The worker's main process grows, not its children: tasks with an eta or countdown and what is "
    "prefetched wait there."
)
NO_LEAK = {
    "allocator": (
        "Not a leak: the C allocator keeps freed memory (fragmentation or an earlier peak). "
        "Try jemalloc, MALLOC_ARENA_MAX=2, or worker_max_memory_per_child."
    ),
    "garbage": (
        "Not a leak: reference cycles wait for the collector. Breaking them keeps the peak lower."
    ),
    "bounded": "Not a leak: what it fills has a bound.",
    "warm-up": "Not a leak: it grew in its first runs only (imports, connections, caches).",
    "steady": "",
    UNSETTLED: "",
}


def for_process(growth_class: str, holder: str, *, waits: bool) -> str:
    """What to do about a process that grows, with its holder where it is known. ``waits``: that is
    of requests that wait."""
    text = WAITING if waits else LEAK[growth_class]
    return f"{holder} grows. {text}" if holder else text


def for_suspect(suspect: Suspect) -> str:
    """What to do about a task type that leaks, by all that is told of it."""
    holder = suspect.holders[0].path if suspect.holders else ""
    site = suspect.sites[0].site if suspect.sites else ""
    return for_leak(suspect.growth_class, holder, site, suspect.outcome)


def for_leak(growth_class: str, holder: str, site: str, outcome: str | None) -> str:
    """What to do, with the holder and the line where they are known."""
    text = LEAK[growth_class]
    if holder:
        text = f"{holder} grows with each run. {text}"
    if site:
        text += f" Made at {site}."
    if outcome == "failed":
        text += " Only failing runs leave something behind: look at the error path."
    return text
