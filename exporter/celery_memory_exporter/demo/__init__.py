"""A leaking Celery application and the exporter looking at it, on one machine, without any
server."""
