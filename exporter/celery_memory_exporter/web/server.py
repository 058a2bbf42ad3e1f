"""The HTTP side: ``/metrics``, health, the page and its API. A request only reads what is there.

uvicorn serves (TLS handshakes and slow clients each in their own task, which prometheus_client's
own server cannot); the exposition is made in a thread, so that health answers while a scrape
renders. Conventions: prometheus.io "Writing exporters", exporter-toolkit.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from prometheus_client import CollectorRegistry

from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.told import Told
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.metrics import exposition
from celery_memory_exporter.web import page
from celery_memory_exporter.web.overview import overview
from celery_memory_exporter.web.rss_history import RssHistory

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[HTTPStatus, Headers, bytes]


def content_type(value: str) -> Headers:
    return [(b"content-type", value.encode())]


PLAIN = content_type("text/plain; charset=utf-8")
#: Every body is what its content type says.
ALWAYS: Headers = [(b"x-content-type-options", b"nosniff")]


class Application:
    """An ASGI application. ``ready`` answers with what is not ready yet, by source; empty when all
    is well.

    ``history`` is the page's sparklines; without one there are none. ``told`` is what was said of
    the workers before.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        snapshot: Callable[[], Snapshot],
        ready: Callable[[], dict[str, str]],
        history: RssHistory | None = None,
        told: Told | None = None,
    ) -> None:
        self._registry = registry
        self._snapshot = snapshot
        self._ready = ready
        self._history = history or RssHistory()
        self._told = told
        #: What takes a while to make, each in a thread.
        self._rendered: dict[str, Callable[[Scope], Answer]] = {
            "/metrics": self._metrics,
            "/api/v1/diagnosis": self._diagnosis,
            "/api/v1/overview": self._overview,
        }
        self._page = page.load()
        self._page_headers: Headers = [
            *content_type("text/html; charset=utf-8"),
            (b"content-security-policy", page.content_security_policy(self._page).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-cache"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            status, headers, body = (
                HTTPStatus.METHOD_NOT_ALLOWED,
                [*PLAIN, (b"allow", b"GET, HEAD")],
                b"GET and HEAD only\n",
            )
        else:
            status, headers, body = await self._answer(scope)
        headers = [*headers, *ALWAYS, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
        )

    async def _answer(self, scope: Scope) -> Answer:
        path = scope["path"]
        if path in self._rendered:
            return await asyncio.to_thread(self._rendered[path], scope)
        if path == "/-/healthy":
            return HTTPStatus.OK, PLAIN, b"celery-memory-exporter is healthy.\n"
        if path in ("/-/ready", "/health"):
            missing = self._ready()
            lines = [f"{source}: {reason}" for source, reason in sorted(missing.items())] or [
                "celery-memory-exporter is ready."
            ]
            status = HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK
            return status, PLAIN, ("\n".join(lines) + "\n").encode()
        if path == "/":
            return compressed(scope, self._page_headers, self._page)
        return HTTPStatus.NOT_FOUND, PLAIN, b"Not found. Metrics are at /metrics.\n"

    def _diagnosis(self, scope: Scope) -> Answer:
        return as_json(scope, dataclasses.asdict(diagnose(self._snapshot().workers, self._told)))

    def _overview(self, scope: Scope) -> Answer:
        return as_json(scope, overview(self._snapshot(), self._history, time.time(), self._told))

    def _metrics(self, scope: Scope) -> Answer:
        names = parse_qs(scope["query_string"].decode("latin-1")).get("name[]")
        registry: Any = self._registry.restricted_registry(names) if names else self._registry
        body, kind = exposition.encode(registry, request_header(scope, b"accept"))
        return compressed(scope, content_type(kind), body, vary=b"accept, accept-encoding")


def as_json(scope: Scope, value: dict[str, Any]) -> Answer:
    body = json.dumps(value).encode()
    return compressed(
        scope, [*content_type("application/json"), (b"cache-control", b"no-store")], body
    )


def compressed(
    scope: Scope, headers: Headers, body: bytes, vary: bytes = b"accept-encoding"
) -> Answer:
    """With gzip where the client takes it."""
    headers = [*headers, (b"vary", vary)]
    if accepts_gzip(request_header(scope, b"accept-encoding")):
        body = gzip.compress(body, compresslevel=1)
        headers.append((b"content-encoding", b"gzip"))
    return HTTPStatus.OK, headers, body


def request_header(scope: Scope, name: bytes) -> str:
    """The last one of that name, or nothing."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return headers.get(name, b"").decode("latin-1")


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
            # longer than the usual scrape interval, so that Prometheus keeps its connection
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            limit_concurrency=100,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Lets scrapes that are under way finish."""
        self._server.should_exit = True
        self._thread.join()
