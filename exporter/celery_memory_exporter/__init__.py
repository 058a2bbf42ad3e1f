"""Prometheus metrics about the memory of Celery workers: who grows, which task type, what is left
behind."""

from celery_memory_exporter.common.version import __version__

__all__ = ["__version__"]
