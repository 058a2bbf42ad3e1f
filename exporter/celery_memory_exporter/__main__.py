"""``python -m celery_memory_exporter`` is ``celery-memory-exporter``."""

import sys

from celery_memory_exporter.cli import main

sys.exit(main())
