"""``tracemalloc`` for one run, which belongs to the application whenever it wants it.

Python has one ``tracemalloc``. While the application traces, the agent does not. If the application
begins to trace within a run that the agent traces, Python would take its ``tracemalloc.start`` for
a repetition and do nothing; at the end of the run the agent would stop what it thinks is its own.
So for that run ``tracemalloc.start`` is a function of the agent's that ends the agent's tracing and
then starts the application's, with the number of frames that it asks for.

What remains: an application that took the function out of the module before
(``from tracemalloc import start``) is not seen.
"""

from __future__ import annotations

import tracemalloc


class Tracing:
    """For one run at a time: ``start``, the run, ``snapshot``, ``stop``."""

    def __init__(self) -> None:
        self._python_start = tracemalloc.start
        #: In the module's place while a run is traced. One object, to be recognised by identity.
        self._own_start = self._give_way
        self.active = False

    def start(self, frames: int) -> None:
        """Traces, unless the application does."""
        if tracemalloc.is_tracing():
            return
        self.active = True  # before it is: a soft time limit may be raised in between
        self._python_start = tracemalloc.start
        tracemalloc.start = self._own_start
        self._python_start(frames)

    def snapshot(self) -> tracemalloc.Snapshot | None:
        """What the run has allocated and not freed; ``None`` where the application has taken
        ``tracemalloc`` over, or has stopped it."""
        return tracemalloc.take_snapshot() if self.active and tracemalloc.is_tracing() else None

    def stop(self) -> None:
        """Ends tracing if it is the agent's; safe to call twice."""
        if self.active:
            self.active = False
            if tracemalloc.start is self._own_start:
                tracemalloc.start = self._python_start
            tracemalloc.stop()

    def _give_way(self, nframe: int = 1) -> None:
        """Called by the application, with the parameter that ``tracemalloc.start`` has."""
        self.stop()
        tracemalloc.start(nframe)
