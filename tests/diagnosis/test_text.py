"""What the terminal says, and `celery-memory-exporter report` against a running server."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from celery_memory_exporter import cli
from celery_memory_exporter.common.evidence import Estimate, Site
from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.text import as_text, duration, size
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.web.server import Application, HttpServer, bind
from tests import samples
from tests.diagnosis.test_judge import evidence_of, view

NOTHING = Snapshot(())


def snapshot(*tasks: Any, **changes: Any) -> Snapshot:
    worker = view(None, **changes)
    assert worker.report is not None
    report = dataclasses.replace(worker.report, tasks=list(tasks))
    return dataclasses.replace(NOTHING, workers=(dataclasses.replace(worker, report=report),))


def text(of: Snapshot) -> str:
    return as_text(dataclasses.asdict(diagnose(of)))


def fine(name: str = "shop.fine") -> Any:
    return samples.task(
        name, growth_bytes=0.0, release_bytes=0.0, evidence=evidence_of(lambda _: 0.0)
    )


def test_a_leak_with_its_holder_line_and_types() -> None:
    lines = text(snapshot(samples.task(), fine())).splitlines()
    assert lines[0] == "1 leak in 1 of 1 worker"
    assert lines[2:8] == [
        "shop.leak   on celery@web1",
        "  retains    900 B a run, 527.3 KiB an hour",
        "  evidence   python; 10 runs, 5 audited, 2 of 2 processes, confidence 0.99",
        "  leaves     shop.MyCacheEntry 1 a run, list 2 a run",
        "  held by    shop._my_app_cache (dict, 250 items)",
        "  made at    shop.py:71  900 B a run",
    ]
    assert "  shop.fine  steady     its runs leave nothing behind (10 runs)" in lines


def test_no_leak() -> None:
    assert text(snapshot(fine())).startswith("No leak found in 1 worker.\n")


def test_no_agent_is_told_with_the_next_step() -> None:
    assert "-I celery_memory_exporter.autoload" in text(NOTHING)


def test_descriptors_are_counted_and_lines_told_in_their_own_unit() -> None:
    evidence = dataclasses.replace(
        evidence_of(lambda _: 0.0, fds=1.0),
        sites=[Site("shop.py:9", "descriptors", 4.0)],
        deep_audits=4,
        watched_audits=4,
    )
    shown = text(snapshot(samples.task(evidence=evidence)))
    assert "retains    1 descriptors a run" in shown
    assert "made at    shop.py:9  1 descriptors a run" in shown


def test_time_to_the_limit() -> None:
    shown = text(snapshot(samples.task(), child_memory_limit_bytes=100 * samples.MIB))
    assert "Memory limit\n  celery@web1  reached in 6 days at the present rate" in shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (2048, "2.0 KiB"),
        (-(3 << 20), "-3.0 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_sizes(count: float, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "5 seconds"), (300, "5 minutes"), (10_000, "3 hours"), (400_000, "5 days")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.fixture
def serve() -> Any:
    servers: list[HttpServer] = []

    def start(of: Snapshot) -> str:
        listener = bind("127.0.0.1", 0)
        server = HttpServer(Application(CollectorRegistry(), lambda: of, dict), listener)
        server.start()
        servers.append(server)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for server in servers:
        server.stop()


def test_the_exit_status_tells_whether_something_leaks(
    serve: Callable[[Snapshot], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", "--url", serve(snapshot(samples.task()))]) == 1
    assert "held by    shop._my_app_cache" in capsys.readouterr().out
    assert cli.main(["report", "--url", serve(snapshot(fine()))]) == 0


def test_json_is_what_the_api_answers(
    serve: Callable[[Snapshot], str], capsys: pytest.CaptureFixture[str]
) -> None:
    overlapping = dataclasses.replace(
        samples.evidence(), overlapping=Estimate(1.0, None, 1.0, None, 1, 1)
    )
    assert (
        cli.main(["report", "--json", "--url", serve(snapshot(samples.task(evidence=overlapping)))])
        == 1
    )
    assert json.loads(capsys.readouterr().out)["suspects"][0]["task"] == "shop.leak"


def test_an_exporter_that_is_not_there_is_told_with_the_next_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    assert cli.main(["report", "--url", url]) == 2
    assert "is the exporter running there? Give its address with --url" in capsys.readouterr().err


def test_a_server_that_is_no_exporter_is_told_as_such(
    serve: Callable[[Snapshot], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", "--url", serve(NOTHING) + "nowhere"]) == 2
    assert "Not Found" in capsys.readouterr().err
    assert cli.main(["report", "--url", "no-url"]) == 2
