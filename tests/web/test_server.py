"""The HTTP side, over real sockets."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from celery_memory_exporter.web import page
from celery_memory_exporter.web.server import Application, HttpServer, accepts_gzip, bind
from tests.metrics.golden_fleet import fixed_fleet
from tests.metrics.golden_fleet import registry as fleet_registry


class Exporter:
    """A running server and what it is not ready for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.missing: dict[str, str] = {}
        listener = bind("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self.server = HttpServer(Application(registry, fixed_fleet, lambda: self.missing), listener)
        self.server.start()

    def get(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(
            method, path, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    running = Exporter(fleet_registry())
    yield running
    running.server.stop()


def test_metrics_in_text(exporter: Exporter) -> None:
    response, body = exporter.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert b"# TYPE celery_worker_memory_rss_bytes gauge\n" in body
    assert not body.endswith(b"# EOF\n")


def test_metrics_in_openmetrics_when_asked(exporter: Exporter) -> None:
    response, body = exporter.get(
        "/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    )
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("*", True),
        ("", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("br", False),
    ],
)
def test_what_accepts_gzip(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


def test_only_the_families_named(exporter: Exporter) -> None:
    _, body = exporter.get("/metrics?name[]=celery_worker_up&name%5B%5D=celery_task_lost_total")
    names = {line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE")}
    assert names == {"celery_worker_up", "celery_task_lost_total"}
    assert exporter.get("/metrics?name[]=nothing")[1] == b""


def test_health_and_readiness(exporter: Exporter) -> None:
    assert exporter.get("/-/healthy")[0].status == 200
    assert exporter.get("/-/ready")[0].status == 200
    exporter.missing = {"broker": "not connected"}
    for path in ("/-/ready", "/health"):
        response, body = exporter.get(path)
        assert (response.status, body) == (503, b"broker: not connected\n")
    assert exporter.get("/-/healthy")[0].status == 200


def test_the_page_leads_to_the_metrics_and_may_load_nothing_else(exporter: Exporter) -> None:
    response, body = exporter.get("/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'<a href="metrics">/metrics</a>' in body
    assert response.headers["Content-Security-Policy"] == page.content_security_policy(body)
    assert response.headers["Cache-Control"] == "no-cache"


def test_the_overview_as_json(exporter: Exporter) -> None:
    response, body = exporter.get("/api/v1/overview")
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    overview = json.loads(body)
    assert [each["nodename"] for each in overview["workers"]] == [
        "celery@bare",
        "celery@past",
        "celery@web1",
    ]
    assert "shop.leak" in [each["task"] for each in overview["suspects"]]


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/diagnosis"])
def test_compressed_when_accepted(exporter: Exporter, path: str) -> None:
    response, body = exporter.get(path, Accept_Encoding="gzip, deflate")
    assert response.headers["Content-Encoding"] == "gzip"
    assert "accept-encoding" in response.headers["Vary"]
    plain, text = exporter.get(path)
    assert plain.headers["Content-Encoding"] is None
    assert gzip.decompress(body) == text


def test_no_browser_guesses_what_an_answer_is(exporter: Exporter) -> None:
    for path in ("/", "/metrics", "/api/v1/overview", "/nope"):
        assert exporter.get(path)[0].headers["X-Content-Type-Options"] == "nosniff"


def test_the_diagnosis_as_json(exporter: Exporter) -> None:
    response, body = exporter.get("/api/v1/diagnosis")
    assert response.headers["Content-Type"] == "application/json"
    diagnosis = json.loads(body)
    assert set(diagnosis) == {"suspects", "cleared", "workers"}
    (suspect,) = [each for each in diagnosis["suspects"] if each["task"] == "shop.leak"]
    assert (suspect["worker"], suspect["growth_class"]) == ("celery@web1", "python")
    assert suspect["holders"][0]["path"] == "shop._my_app_cache"
    assert suspect["sites"] == [{"site": "shop.py:71", "amount_per_run": 900.0, "figure": "bytes"}]
    assert {"type": "shop.MyCacheEntry", "per_run": 1.0} in suspect["object_types"]


@pytest.mark.parametrize("path", ["/nope", "/metrics/", "/favicon.ico", "//metrics"])
def test_everything_else_is_not_found(exporter: Exporter, path: str) -> None:
    assert exporter.get(path)[0].status == 404


def test_head_has_no_body_and_post_is_refused(exporter: Exporter) -> None:
    response, body = exporter.get("/metrics", method="HEAD")
    assert (response.status, body) == (200, b"")
    response, _ = exporter.get("/metrics", method="POST")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_a_silent_connection_keeps_nobody_waiting(exporter: Exporter) -> None:
    with socket.create_connection(("127.0.0.1", exporter.port)):
        assert exporter.get("/metrics")[0].status == 200


def test_health_answers_while_a_scrape_is_slow() -> None:
    started, go_on = threading.Event(), threading.Event()

    class Slow(Collector):
        def describe(self) -> list[GaugeMetricFamily]:
            return []

        def collect(self) -> list[GaugeMetricFamily]:
            started.set()
            assert go_on.wait(30)
            return []

    registry = CollectorRegistry()
    registry.register(Slow())
    exporter = Exporter(registry)
    scrape = threading.Thread(target=exporter.get, args=("/metrics",))
    scrape.start()
    assert started.wait(10)
    assert exporter.get("/-/healthy")[0].status == 200
    go_on.set()
    scrape.join()
    exporter.server.stop()


def test_a_scrape_that_fails_is_a_server_error_and_the_next_one_works() -> None:
    registry = CollectorRegistry()
    errors = [RuntimeError("first")]

    class Broken(Collector):
        def describe(self) -> list[GaugeMetricFamily]:
            return []

        def collect(self) -> list[GaugeMetricFamily]:
            if errors:
                raise errors.pop()
            return []

    registry.register(Broken())
    exporter = Exporter(registry)
    assert exporter.get("/metrics")[0].status == 500
    assert exporter.get("/metrics")[0].status == 200
    exporter.server.stop()


def test_every_address_listens_on_both_protocols() -> None:
    listener = bind("", 0)
    port = listener.getsockname()[1]
    with listener, socket.create_connection(("127.0.0.1", port)):
        pass


def test_an_address_that_is_taken_cannot_be_bound() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", listener.getsockname()[1])
