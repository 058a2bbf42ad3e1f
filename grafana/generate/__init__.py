"""Dashboards, alerts and recording rules as Python data, written out by
``python -m grafana.generate``."""
