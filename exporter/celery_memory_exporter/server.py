"""The HTTP side: ``/metrics``, health, and a landing page. A scrape only reads what is there.

uvicorn serves (TLS handshakes and slow clients each in their own task, which prometheus_client's own server cannot);
the exposition is made in a thread, so that health answers while a scrape renders. Conventions: prometheus.io "Writing
exporters", exporter-toolkit.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import html
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from prometheus_client import CollectorRegistry

from celery_memory_exporter import __version__, exposition
from celery_memory_exporter.diagnosis import diagnose
from celery_memory_exporter.snapshot import Snapshot

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

LANDING_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>celery-memory-exporter</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}}</style>
</head><body><h1>celery-memory-exporter</h1>
<p>Memory of Celery workers, by process, by task type, by object type. Version {version}.</p>
<ul><li><a href="metrics">/metrics</a>: for Prometheus</li>
<li><a href="api/v1/diagnosis">/api/v1/diagnosis</a>: who leaks, as JSON</li>
<li><a href="-/healthy">/-/healthy</a>: the process answers</li>
<li><a href="-/ready">/-/ready</a>: all sources work</li></ul></body></html>
"""


def content_type(value: str) -> Headers:
    return [(b"content-type", value.encode())]


PLAIN = content_type("text/plain; charset=utf-8")


class Application:
    """An ASGI application. ``ready`` answers with what is not ready yet, by source; empty when all is well."""

    def __init__(self, registry: CollectorRegistry, snapshot: Callable[[], Snapshot], ready: Callable[[], dict[str, str]]) -> None:
        self._registry = registry
        self._snapshot = snapshot
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            status, headers, body = HTTPStatus.METHOD_NOT_ALLOWED, [*PLAIN, (b"allow", b"GET, HEAD")], b"GET and HEAD only\n"
        else:
            status, headers, body = await self._answer(scope)
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Scope) -> tuple[HTTPStatus, Headers, bytes]:
        path = scope["path"]
        if path == "/metrics":
            return await asyncio.to_thread(self._metrics, scope)
        if path == "/api/v1/diagnosis":
            return await asyncio.to_thread(self._diagnosis)
        if path == "/-/healthy":
            return HTTPStatus.OK, PLAIN, b"celery-memory-exporter is healthy.\n"
        if path in ("/-/ready", "/health"):
            missing = self._ready()
            lines = [f"{source}: {reason}" for source, reason in sorted(missing.items())] or ["celery-memory-exporter is ready."]
            status = HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK
            return status, PLAIN, ("\n".join(lines) + "\n").encode()
        if path == "/":
            page = LANDING_PAGE.format(version=html.escape(__version__))
            return HTTPStatus.OK, content_type("text/html; charset=utf-8"), page.encode()
        return HTTPStatus.NOT_FOUND, PLAIN, b"Not found. Metrics are at /metrics.\n"

    def _diagnosis(self) -> tuple[HTTPStatus, Headers, bytes]:
        body = json.dumps(dataclasses.asdict(diagnose(self._snapshot())))
        return HTTPStatus.OK, [*content_type("application/json"), (b"cache-control", b"no-store")], body.encode()

    def _metrics(self, scope: Scope) -> tuple[HTTPStatus, Headers, bytes]:
        request_headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        names = parse_qs(scope["query_string"].decode("latin-1")).get("name[]")
        registry: Any = self._registry.restricted_registry(names) if names else self._registry
        body, kind = exposition.encode(registry, request_headers.get("accept", ""))
        headers = [*content_type(kind), (b"vary", b"accept, accept-encoding")]
        if accepts_gzip(request_headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            headers.append((b"content-encoding", b"gzip"))
        return HTTPStatus.OK, headers, body


def accepts_gzip(header: str) -> bool:
    """Whether ``Accept-Encoding`` names gzip without refusing it (``gzip;q=0``)."""
    for part in header.split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", parameters)
    return False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``OSError`` when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
    dual_stack = family == socket.AF_INET6 and not host and socket.has_dualstack_ipv6()
    if not host and not dual_stack:
        family, host = socket.AF_INET, "0.0.0.0"  # noqa: S104  # an exporter listens for its Prometheus; configurable
    return socket.create_server((host, port), family=family, dualstack_ipv6=dual_stack)


class HttpServer:
    """Serves ``application`` on a bound socket, in a thread of its own, until ``stop``."""

    def __init__(self, application: Application, listener: socket.socket) -> None:
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=75,  # longer than the usual scrape interval, so that Prometheus keeps its connection
            timeout_graceful_shutdown=5,
            limit_concurrency=100,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Lets scrapes that are under way finish."""
        self._server.should_exit = True
        self._thread.join()
