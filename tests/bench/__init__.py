"""What the README says about speed, measured anew: ``python -m tests.bench.run``. Of pytest's,
only ``test_parts`` is here: whether each part runs."""
