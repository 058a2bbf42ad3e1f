"""What follows from the figures of a report."""

from __future__ import annotations

from tests import samples


def test_retained_bytes_are_native_bytes_and_blocks() -> None:
    assert samples.task(retained_native_bytes=1000.0, retained_blocks=10.0).retained_bytes == 1900.0


def test_without_the_c_heap_retained_bytes_are_those_of_blocks() -> None:
    assert samples.task(retained_native_bytes=None, retained_blocks=10.0).retained_bytes == 900.0
