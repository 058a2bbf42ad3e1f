"""In the worker: its main process and its pool children, what they tell each other, and the
report."""
