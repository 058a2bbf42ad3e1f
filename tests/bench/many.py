"""An application of many task types that do nothing: more than the agent tells apart, so that its
caps are at work too."""

from __future__ import annotations

import os

from celery import Celery

TASK_TYPES = 500

app = Celery("many", broker=os.environ["TEST_BROKER_URL"])
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)


def noop() -> None:
    pass


NAMES = [f"{__name__}.task_{number}" for number in range(TASK_TYPES)]
for name in NAMES:
    app.task(noop, name=name)
