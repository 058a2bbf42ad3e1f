"""What is said of a metric family, before there is any sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. A counter's ``name`` ends in ``_total``, an info's in ``_info``, as the
    samples do."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
