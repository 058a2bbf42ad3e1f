"""Can what the other dashboards show be trusted, and what does it cost?"""

from __future__ import annotations

from grafana.generate import fields, layout, panels
from grafana.generate.fields import ALARM, GREEN, ORANGE, RED, steps
from grafana.generate.queries import Json, query

UID = "celery-memory-exporter"
OWN = "celery_memory_exporter"


def sources() -> Json:
    return panels.panel(
        "state-timeline",
        "Sources",
        "broker: reports and events arrive. queues: lengths can be read. processes: the process "
        "table can be read. A source that is down leaves its series out; "
        "the exporter's log says why.",
        [query(f"{OWN}_source_up{{$all}}", "{{source}} {{instance}}")],
        "none",
        defaults={
            "color": {"mode": "thresholds"},
            "thresholds": steps((None, RED), (1, GREEN)),
            "mappings": [
                {
                    "type": "value",
                    "options": {
                        "0": {"text": "down", "color": RED, "index": 0},
                        "1": {"text": "up", "color": GREEN, "index": 1},
                    },
                }
            ],
        },
        custom={"fillOpacity": 70, "lineWidth": 0},
        options={
            "mergeValues": True,
            "showValue": "auto",
            "rowHeight": 0.8,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        },
    )


def lag() -> Json:
    return panels.series(
        "Lag of events",
        "Age of the last event when it was handled, by its sender's clock. Seconds that stay: "
        "clocks that differ. Seconds that rise: the exporter does not keep up.",
        [query(f"{OWN}_event_lag_seconds{{$all}}", "{{instance}}")],
        "s",
    )


def received() -> Json:
    return panels.series(
        "Reports and events",
        "A second. Reports come from agents, the groups of events from workers with -E.",
        [
            query(f"sum(rate({OWN}_reports_received_total{{$all}}[$__rate_interval]))", "reports"),
            query(
                f"sum by (group) (rate({OWN}_events_received_total{{$all}}[$__rate_interval]))",
                "events: {{group}}",
            ),
        ],
        "cps",
    )


def not_counted() -> Json:
    return panels.series(
        "Refused, ignored, lost",
        "Reports that were refused (version: upgrade the exporter first), events that could not be "
        "counted, and tasks whose events did not get here. The totals of an agent's worker do not "
        "suffer: its next report says all again.",
        [
            query(
                "sum by (reason) "
                f"(increase({OWN}_reports_rejected_total{{$all}}[$__rate_interval]))",
                "report refused: {{reason}}",
            ),
            query(
                f"sum by (reason) (increase({OWN}_events_ignored_total{{$all}}[$__rate_interval]))",
                "event ignored: {{reason}}",
            ),
            query(
                f"sum by (worker) (increase({OWN}_events_lost_total{{$all}}[$__rate_interval]))",
                "events lost: {{worker}}",
            ),
            query(
                f"sum(increase({OWN}_broker_reconnects_total{{$all}}[$__rate_interval]))",
                "connections to the broker lost",
            ),
        ],
        "none",
    )


def kept_back() -> Json:
    return panels.series(
        "Kept back by a cap",
        "What did not become a series of its own, by the family that has the cap; where a sum "
        "makes sense it is in other. Raise limits in the exporter's configuration "
        "where it matters.",
        [
            query(f"sum({OWN}_series_dropped_total{{$all}}) or vector(0)", "all"),
            query(f"sum by (family) ({OWN}_series_dropped_total{{$all}})", "{{family}}"),
        ],
        "short",
    )


def cost_of_agents() -> Json:
    return panels.series(
        "What the agent costs",
        "Time around task runs that the agent took for itself, in seconds a second of one core, by "
        "worker. Above 0.02 look at which of its settings to turn down (README, "
        "the agent's settings).",
        [
            query(
                "sum by (worker) "
                "(rate(celery_agent_overhead_seconds_total{$worker}[$__rate_interval]))",
                "{{worker}}",
            )
        ],
        "percentunit",
    )


def agents_in_trouble() -> Json:
    return panels.series(
        "Agents in trouble",
        "Reports that could not be sent (the next one says all they said), and errors inside the "
        "agent; the worker's log has each place once.",
        [
            query(
                "sum by (worker) "
                "(increase(celery_agent_reports_dropped_total{$worker}[$__rate_interval]))",
                "not sent: {{worker}}",
            ),
            query(
                "sum by (worker) (increase(celery_agent_errors_total{$worker}[$__rate_interval]))",
                "errors: {{worker}}",
            ),
        ],
        "none",
    )


def workers() -> Json:
    return panels.table(
        "Workers and their agents",
        "An empty agent: that worker has none, and only its processes and its events are seen. "
        "Turn it on with -I celery_memory_exporter.autoload.",
        [
            ("worker", "Worker"),
            ("pool", "Pool"),
            ("python_version", "Python"),
            ("celery_version", "Celery"),
            ("agent_version", "Agent"),
        ],
        ["celery_worker_info{$worker}"],
        overrides=[fields.override("^(Pool|Python|Celery|Agent)$", regex=True, custom__width=75)],
        sort="Worker",
        ascending=True,
    )


def itself() -> layout.Row:
    memory = panels.series(
        "Memory of the exporter",
        "Resident. It is bounded by the caps on what it keeps of each worker.",
        [query("process_resident_memory_bytes{$all}", "{{instance}}")],
        "bytes",
    )
    cpu = panels.series(
        "CPU of the exporter",
        "Seconds a second of one core.",
        [query("rate(process_cpu_seconds_total{$all}[$__rate_interval])", "{{instance}}")],
        "percentunit",
    )
    scrape = panels.series(
        "Scrapes",
        "How long they took (left) and how many samples they had (right). Beyond the scrape's "
        "timeout or its sample_limit all of it is lost: "
        "raise them, or lower limits in the exporter's configuration.",
        [
            query("scrape_duration_seconds{$all}", "duration, {{instance}}"),
            query("scrape_samples_scraped{$all}", "samples, {{instance}}"),
        ],
        "s",
        overrides=[
            fields.override(
                "^samples",
                regex=True,
                unit="short",
                custom__axisPlacement="right",
                custom__fillOpacity=0,
            )
        ],
    )
    collect = panels.series(
        "Reading the sources",
        "How long the last round of each took.",
        [query(f"{OWN}_collect_duration_seconds{{$all}}", "{{source}}")],
        "s",
    )
    return layout.row(8, memory, cpu, scrape, collect)


def reach() -> list[Json]:
    """Whether everything can be heard and seen."""
    return [
        panels.stat(
            "Sources down",
            "Of all exporters. Each is named below.",
            f"count({OWN}_source_up{{$all}} == 0) or vector(0)",
            "none",
            thresholds=ALARM,
        ),
        panels.stat(
            "Workers with an agent",
            "The others are seen from outside only.",
            'count(celery_worker_info{$worker,agent_version!=""}) / '
            "count(celery_worker_info{$worker})",
            "percentunit",
            thresholds=steps((None, ORANGE), (1, GREEN)),
        ),
        panels.stat(
            "Kept by the kernel",
            "1 where processes cannot be seen (hidepid) and no worker is known by them. Shared "
            "memory of other users' processes is not meant. "
            "Run the exporter as the workers' user, or give it CAP_SYS_PTRACE.",
            f'sum({OWN}_access_denied{{$all,what="processes"}}) or vector(0)',
            "none",
            thresholds=ALARM,
        ),
    ]


def amounts() -> list[Json]:
    return [
        panels.stat(
            "Workers known",
            "Those that are silent for expire_after_seconds are forgotten.",
            f"sum({OWN}_workers{{$all}})",
            "none",
        ),
        panels.stat(
            "Reports refused",
            "In this time range.",
            f"sum(increase({OWN}_reports_rejected_total{{$all}}[$__range])) or vector(0)",
            "none",
            thresholds=ALARM,
        ),
        panels.stat(
            "Series kept back",
            "What caps kept from becoming series since the exporters started.",
            f"sum({OWN}_series_dropped_total{{$all}}) or vector(0)",
            "short",
            thresholds=steps((None, GREEN), (1, ORANGE)),
        ),
    ]


def content() -> list[layout.Row]:
    return [
        layout.figures(*reach(), *amounts()),
        (6, [(14, sources()), (10, lag())]),
        layout.row(8, received(), not_counted(), kept_back()),
        layout.row(9, cost_of_agents(), agents_in_trouble(), workers()),
        itself(),
    ]


def build() -> Json:
    return layout.dashboard(
        UID,
        "Celery memory / Exporter and agents",
        "Whether the exporter hears everything, and what it and the agents cost.",
        [layout.WORKER],
        content(),
    )
