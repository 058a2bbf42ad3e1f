"""``python -m celery_memory_exporter`` is the command ``celery-memory-exporter``."""

from __future__ import annotations

import sys

from celery_memory_exporter.cli import main

if __name__ == "__main__":
    sys.exit(main())
