"""The metrics: what there is, a snapshot as families, and their text."""
