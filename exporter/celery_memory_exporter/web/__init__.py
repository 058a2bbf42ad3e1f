"""HTTP: metrics, health, the page and its answers."""
