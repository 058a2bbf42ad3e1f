"""The application's behaviours, by what they are about. Each module is one worker's program."""

from tests.differential.behaviours import (
    collector,
    endings,
    interruptions,
    processes,
    running,
    tools,
)

__all__ = ["collector", "endings", "interruptions", "processes", "running", "tools"]
