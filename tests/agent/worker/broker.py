"""A Celery app whose broker can be gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

#: What it says when it is gone, in two lines and with its password.
SAYING = "secret is wrong,\n  or not"


class App:
    """As far as the agent's steps and their sender ask for it."""

    def __init__(self) -> None:
        self.gone = False
        self.tasks: dict[str, Any] = {}
        self.celery_memory_settings: Any = None
        self.sent: list[tuple[str, Any]] = []
        self.connected: list[tuple[str | None, dict[str, Any]]] = []
        self.open = 0
        self.conf = SimpleNamespace(
            broker_transport_options={"master_name": "mymaster"},
            broker_write_url="redis://:secret@here/0?password=secret",
            include=(),
            imports=(),
        )
        self.main = "shop"
        self.events = SimpleNamespace(Dispatcher=self._dispatcher)

    def connection_for_write(self, url: str | None, **options: Any) -> Any:
        self.connected.append((url, options))
        self.open += 1
        return SimpleNamespace(ensure_connection=self._ensure, release=self._release)

    def _ensure(self, **_: Any) -> None:
        if self.gone:
            raise ConnectionRefusedError(SAYING)

    def _release(self) -> None:
        self.open -= 1

    def _dispatcher(self, connection: Any, **options: Any) -> Any:
        assert (options["buffer_while_offline"], options["serializer"]) == (False, "json")

        def send(kind: str, *, report: Any) -> None:
            if self.gone:
                raise ConnectionResetError(SAYING)
            self.sent.append((kind, report))

        return SimpleNamespace(send=send, producer=SimpleNamespace(compression=None))
