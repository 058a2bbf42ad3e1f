"""The tests' application, with what its broker needs beside a URL."""

from __future__ import annotations

import json
import os

from tests.integration.tasks import app

app.conf.update(json.loads(os.environ["TEST_BROKER_SETTINGS"]))
