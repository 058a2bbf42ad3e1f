"""The page at ``/``: one static file, which works without internet, and the policy that lets it do
no more than it needs."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

#: Nothing from elsewhere, nothing that is not in the file: what a task's name smuggles in cannot
#: run.
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src "
    "'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def load() -> bytes:
    return files(__name__).joinpath("index.html").read_bytes()


def content_security_policy(page: bytes) -> str:
    """Allows the page's own inline script and style, by their hashes (CSP level 2)."""
    return POLICY.format(script=hashes(page, b"script"), style=hashes(page, b"style"))


def hashes(page: bytes, element: bytes) -> str:
    contents = re.findall(b"<%b>(.*?)</%b>" % (element, element), page, re.DOTALL)
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each).digest()).decode()}'" for each in contents
    )
