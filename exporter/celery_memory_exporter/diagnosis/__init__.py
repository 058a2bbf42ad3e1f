"""A snapshot in, a verdict out: what leaks, what does not, and what can be done. Pure functions."""
