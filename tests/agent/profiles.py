"""Rows of profiles with given figures."""

from __future__ import annotations

from celery_memory_exporter.agent.stats.profile import WIDTH, Column, ProfileRow


def set_figures(row: ProfileRow, age: int, **figures: float) -> ProfileRow:
    """The row, with these figures at this age."""
    for name, value in figures.items():
        row.figures[age * WIDTH + Column[name.upper()]] = value
    return row


def profile_row(age: int, **figures: float) -> ProfileRow:
    """A row with figures at one age only."""
    return set_figures(ProfileRow(), age, **figures)
