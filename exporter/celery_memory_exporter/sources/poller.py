"""A thread that takes one step again and again: it drives every source here, and whatever else goes
by time.

* A step that raises ends nothing: what it raised is told, and the next step comes after the same
  pause.
* ``stop`` ends a pause at once. A step that is under way is waited for, but no longer than
  ``patience`` seconds where a broker may leave it without an answer; the thread is a daemon, so it
  keeps no program from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one step went."""

    seconds: float
    #: What it raised.
    error: Exception | None
    #: Whether it failed as the step before it had: then the log knows.
    again: bool


class Poller:
    """Takes ``step`` again and again, in a thread called ``name``, and ``tell``s how each went.

    ``release`` is called in the thread when no step follows. All times are seconds.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], None],
        tell: Callable[[Attempt], None],
        *,
        interval: float,
        patience: float | None = None,
        release: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        #: From the end of a step to the next one; ``tell`` may change it.
        self.interval = interval
        self._name = name
        self._step = step
        self._tell = tell
        self._patience = patience
        self._release = release
        self._monotonic = monotonic
        self._failing = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, *, after: float = 0.0) -> None:
        """The first step in the thread comes ``after`` so many seconds."""
        self._thread = threading.Thread(
            target=self._run, args=(after,), name=self._name, daemon=True
        )
        self._thread.start()

    def finish(self) -> None:
        """No step follows the one that is under way."""
        self._stopping.set()

    def stop(self) -> None:
        self.finish()
        if self._thread is not None:
            self._thread.join(self._patience)

    @property
    def stopping(self) -> bool:
        """A step that takes long has to look at it."""
        return self._stopping.is_set()

    def poll(self) -> None:
        """Takes one step in the caller's thread. It raises nothing."""
        begun = self._monotonic()
        error: Exception | None = None
        try:
            self._step()
        except Exception as raised:  # whatever it is, it is told, and the next step may do better
            error = raised
        again = self._failing and error is not None
        self._failing = error is not None
        self._tell(Attempt(self._monotonic() - begun, error, again))

    def _run(self, after: float) -> None:
        self._stopping.wait(after)
        while not self.stopping:
            self.poll()
            self._stopping.wait(self.interval)
        if self._release is not None:
            self._release()
