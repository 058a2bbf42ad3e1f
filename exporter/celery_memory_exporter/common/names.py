"""Names that users, brokers or other machines chose, as label values: printable, of bounded length,
one spelling a thing."""

from __future__ import annotations

MAX_NAME_LENGTH = 120
#: The name under which is counted what has none of its own: a cap is reached, or it is not known.
OTHER = "other"


def printable(text: str) -> str:
    """The text as something that UTF-8 can hold: a lone surrogate is valid in JSON, and what Python
    makes of foreign bytes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def short_name(name: str) -> str:
    """The name as a label's value: what users or the network chose, printable, and cut where it is
    longer than ``MAX_NAME_LENGTH`` characters."""
    return printable(name)[:MAX_NAME_LENGTH]


def hostname_of(nodename: str) -> str:
    """What danihodovic/celery-exporter calls hostname: the nodename after the ``@``."""
    return nodename.partition("@")[2] or nodename


def pool_name(module: str) -> str:
    """``prefork``, ``solo``, ``threads``, ``gevent``, ``eventlet`` or a custom pool's own name, out
    of its class's module."""
    name = module.rpartition(".")[2]
    return "threads" if name == "thread" else name
