"""Prometheus metrics about the memory of Celery workers: who grows, which task type, what is left
behind."""

__version__ = "0.1.0"
