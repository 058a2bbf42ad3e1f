"""What is believed about all workers now. No I/O and no clock: ``now`` is handed in."""
