"""The agent: measures every task run inside the worker and reports once per interval over Celery's
event stream.

Turn it on without touching code::

    celery -A proj worker -I celery_memory_exporter.autoload

or in code, before the worker starts::

    from celery_memory_exporter.agent import install
    install(app)

Reading order: ``install`` → ``worker.steps`` → ``worker.main_process`` → ``worker.pool_child`` →
``meter.tracer`` and ``meter.meter`` (one run) → ``meter.books`` (what runs add up to) →
``audit.audit`` (one run, exactly) → ``audit.deep`` (who holds it, and which line) →
``worker.shared_map`` (where runs are added up) → ``worker.outbox`` and ``worker.records`` (what
goes through the pipe) → ``worker.ledger`` and ``worker.evidence`` (what is known of all processes)
→ ``worker.reporting`` (the report) → ``worker.keeping`` and ``worker.predecessors`` (what outlives
a worker).

Only the standard library, Celery and ``common`` are imported here and below.
"""

from __future__ import annotations

from typing import Any

from celery_memory_exporter.agent.settings import Settings


def install(app: Any, settings: Settings | None = None) -> None:
    """Adds the agent to every worker that ``app`` starts from now on; a second call changes
    nothing.

    Settings come from the environment (see ``Settings``) unless they are given. A setting that
    cannot be read is logged once and its default taken: the agent never keeps a worker from
    starting.
    """
    from celery_memory_exporter.agent.worker.steps import (
        AgentStep,
        ReportStep,
    )  # Celery is imported late, with the worker

    if AgentStep in app.steps["worker"]:
        return
    app.celery_memory_settings = settings or Settings.from_environment()
    app.steps["worker"].add(AgentStep)
    app.steps["consumer"].add(ReportStep)
