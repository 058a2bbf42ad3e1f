"""The leak zoo: real leaks and innocents in real workers, and what the exporter says about them."""
