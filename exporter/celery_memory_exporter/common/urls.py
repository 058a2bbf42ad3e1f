"""Broker URLs without their secrets."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

#: Up to the last @, with line breaks: a password that nobody encoded may hold either.
USERINFO = re.compile(r"(?<=://).*(?=@)", re.DOTALL)


def safe_url(url: str) -> str:
    """The URL (kombu takes several, for failover, between semicolons) without passwords, for logs
    and messages."""
    return ";".join(USERINFO.sub(_without_password, each) for each in url.split(";"))


def _without_password(userinfo: re.Match[str]) -> str:
    user, colon, _ = userinfo[0].partition(":")
    return f"{user}{colon}**" if colon else user


def passwords(url: str) -> list[str]:
    """The passwords in it. Raises ``ValueError`` where part of one is taken for the port."""
    parts = [urlsplit(each) for each in url.split(";")]
    for part in parts:
        part.port  # noqa: B018  # it is parsed when it is asked for
    return [part.password for part in parts if part.password]


def without_passwords(text: str, url: str) -> str:
    """What somebody wrote who knows the URL, in one line and without its passwords. Raises
    ``ValueError`` as ``passwords`` does."""
    secrets = passwords(url)
    line = " ".join(text.split())
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        line = line.replace(secret, "**")
    return line
