"""The version of the package, which the agent tells as its own; the build reads it from here."""

__version__ = "0.2.0"
