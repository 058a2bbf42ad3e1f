"""The agent's two bootsteps, which live differently.

``AgentStep`` belongs to the worker: it is made before the pool forks, so that children inherit the
channel. ``ReportStep`` belongs to the consumer, which Celery stops and starts at every reconnect:
it has the timer.
"""

from __future__ import annotations

import atexit
import logging
import sys
import time
from typing import Any

from celery import bootsteps
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutdown

from celery_memory_exporter.agent.application import declare, packages_of
from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker.main_process import WorkerAgent
from celery_memory_exporter.agent.worker.sender import ReportSender, destination
from celery_memory_exporter.common.codec import encode

logger = logging.getLogger("celery_memory_exporter.agent")

#: How often the main process looks at pipe and pool. A child that ends by itself stays for a second
#: (billiard), so none is missed.
TICK_SECONDS = 0.5
#: The first report comes soon: whoever turns the agent on waits for it.
FIRST_REPORT_SECONDS = 2.0
#: Brokers without fanout.
WITHOUT_EVENTS = ("sqs:", "sqs+")


def tell_of_predecessors(agent: WorkerAgent, sender: ReportSender) -> None:
    """All of them, as far as they can be sent now. An exporter takes none of their reports after
    one of this worker's own. Raises what the transport raises."""
    for _ in agent.predecessors.tell(sender.send, time.time()):
        pass


class AgentStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no type information
    """Worker step: made before the pool starts, so that children inherit the channel."""

    label = "MemoryAgent"
    # Which knows how many children there will be at most.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self.guard = Guard()
        worker.memory_agent = None
        settings = worker.app.celery_memory_settings
        self.enabled = settings.enabled
        if self.enabled:
            self._make(worker, settings)

    def _make(self, worker: Any, settings: Settings) -> None:
        self._find_application(worker.app, settings)
        try:
            agent = WorkerAgent(worker, settings)
        except Exception:
            self.guard.note("WorkerAgent")
            return
        worker.memory_agent, self.guard = agent, agent.guard
        worker_shutdown.connect(self.on_shutdown, sender=worker, weak=False)
        self._announce(worker.app, settings)
        if agent.channel is not None:
            worker_process_init.connect(lambda **_: agent.start_child(), weak=False)
            worker_process_shutdown.connect(
                lambda exitcode=0, **_: agent.end_child(exitcode), weak=False
            )

    @guarded
    def _find_application(self, app: Any, settings: Settings) -> None:
        declare(packages_of(app, sys.argv, settings.application or ()))

    @guarded
    def _announce(self, app: Any, settings: Settings) -> None:
        where = destination(app, settings.events_url)
        if where.startswith(WITHOUT_EVENTS):
            logger.warning(
                "The memory agent cannot report: %s carries no events. "
                "Set CELERY_MEMORY_EVENTS_URL to a broker that does.",
                where,
            )
        else:
            logger.info(
                "The memory agent is on: it reports every %g s to %s",
                settings.interval_seconds,
                where,
            )

    def on_shutdown(self, sender: Any, **_: Any) -> None:
        """All steps have stopped, in an order that nobody knows for this one; tasks of threads end
        when the interpreter does."""
        agent: WorkerAgent = sender.memory_agent
        if agent.pool == "threads":
            atexit.register(self.say_goodbye, agent)
        else:
            self.say_goodbye(agent)

    @guarded
    def say_goodbye(self, agent: WorkerAgent) -> None:
        """Tells what the last tasks came to, on a connection of its own. Where the broker is away,
        the next worker of this name does."""
        agent.look()
        report = encode(agent.report(agent.reports_dropped, final=True))
        agent.keeper.keep(report)
        sender = ReportSender(agent.worker.app, agent.worker.hostname, agent.settings.events_url)
        try:
            tell_of_predecessors(agent, sender)
            # Of one that ends by an error, as when its broker is killed, the next one tells again:
            # the exporter may be cut off as well.
            if sender.send(report) and not agent.worker.exitcode:
                agent.keeper.forget()
        finally:
            sender.close()
            agent.requests.stop()


class ReportStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no type information
    """Consumer step: looks at the children and sends reports, while there is a connection to the
    broker."""

    label = "MemoryReports"
    # After Tasks, which builds the tracers that are wrapped here.
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._consumer = consumer
        self._timer_entry: Any = None
        self._sender: ReportSender | None = None
        self._next_report = 0.0
        self.agent: WorkerAgent | None = getattr(consumer.controller, "memory_agent", None)
        self.guard = self.agent.guard if self.agent else Guard()
        self.enabled = self.agent is not None

    @guarded
    def start(self, consumer: Any) -> None:
        assert self.agent is not None
        self.agent.follow(consumer)
        self.agent.look()
        self.agent.begin()
        settings = self.agent.settings
        self._sender = ReportSender(consumer.app, consumer.hostname, settings.events_url)
        self._sender.dropped = self.agent.reports_dropped
        # At once for a predecessor: this worker's own first report waits for it, and the more is in
        # that, the less it looks like a counter that began anew.
        pause = 0.0 if len(self.agent.predecessors) else FIRST_REPORT_SECONDS
        self._next_report = time.monotonic() + min(pause, settings.interval_seconds)
        self._timer_entry = consumer.timer.call_repeatedly(
            min(TICK_SECONDS, settings.interval_seconds), self.tick, priority=10
        )

    @guarded
    def tick(self) -> None:
        assert self.agent is not None
        assert self._sender is not None
        self.agent.look()
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + self.agent.settings.interval_seconds
            # Nothing follows one of them that is not done: for a whole interval the exporter has
            # its figures, to be scraped. They would be lost in this worker's, which begin at zero.
            if all(self.agent.predecessors.tell(self._sender.send, time.time())):
                self.agent.requests.follow(self._consumer)
                self._tell()

    @guarded
    def close(self, consumer: Any) -> None:
        """The worker is about to stop, with the broker still there: what happened since the last
        report is told."""
        if self._sender is not None and self.agent is not None:
            self.agent.look()
            tell_of_predecessors(self.agent, self._sender)
            self._tell()

    def _tell(self) -> None:
        assert self.agent is not None
        assert self._sender is not None
        report = encode(self.agent.report(self._sender.dropped))
        self.agent.keeper.keep(report)
        self._sender.send(report)

    @guarded
    def stop(self, consumer: Any) -> None:
        if self._timer_entry is not None:
            self._timer_entry.cancel()
            self._timer_entry = None
        if self._sender is not None and self.agent is not None:
            self.agent.reports_dropped = self._sender.dropped
            self._sender.close()
