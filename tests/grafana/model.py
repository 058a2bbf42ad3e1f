"""Reads dashboards into the official model of a Grafana release and says what does not come out
again.

``python -m tests.grafana.model FILE…`` with the release's ``grafana-foundation-sdk`` in
``PYTHONPATH``; a program of its own, as several releases of the SDK cannot be in one process. One
line for each difference; nothing when the model knows every field.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What the Prometheus data source itself reads of an annotation's query; older models end at the
#: query.
OF_THE_DATA_SOURCE = ("titleFormat", "tagKeys")


def differences(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:
    """What of ``ours`` is not in ``theirs``. The model may add its defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in OF_THE_DATA_SOURCE and key not in theirs:
                continue
            if key not in theirs:
                yield f"{where}.{key} is not known"
            else:
                yield from differences(value, theirs[key], f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(mine, other, f"{where}[{number}]")
    elif ours != theirs:
        yield f"{where} is {theirs!r} instead of {ours!r}"


def main(paths: list[str]) -> int:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    for path in paths:
        ours = json.loads(Path(path).read_text())
        theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
        for difference in differences(ours, theirs):
            print(f"{Path(path).name}{difference}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
