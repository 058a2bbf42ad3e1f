"""The application's behaviours, by what they are about. Each module is one worker's program."""

from tests.differential.behaviours import (
    collector,
    coverage,
    endings,
    interruptions,
    messages,
    processes,
    running,
    tools,
)

__all__ = [
    "collector",
    "coverage",
    "endings",
    "interruptions",
    "messages",
    "processes",
    "running",
    "tools",
]
