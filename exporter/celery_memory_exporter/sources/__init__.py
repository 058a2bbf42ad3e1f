"""Where facts come from: the broker, its queues, workers that are asked, and the local process
table. I/O and threads."""
