"""What the README says about speed, measured anew: ``python -m tests.bench.run``. pytest collects
nothing here."""
