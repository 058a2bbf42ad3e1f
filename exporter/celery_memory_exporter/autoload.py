"""Importing this module turns the agent on:
``celery -A proj worker -I celery_memory_exporter.autoload``.

The one module with an effect at import, and it is only this: when a worker of any app starts in
this process, the agent is installed in it. Celery imports what ``-I`` names before it sends
``worker_init``, and builds the worker after it.
"""

from __future__ import annotations

from typing import Any

from celery.signals import worker_init

from celery_memory_exporter.agent import install


@worker_init.connect(weak=False)  # type: ignore[untyped-decorator]  # Celery has no type information
def install_in_worker(sender: Any, **_: Any) -> None:
    """``sender`` is the worker that is about to be built."""
    install(sender.app)
